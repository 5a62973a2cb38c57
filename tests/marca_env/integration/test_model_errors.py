"""Errors of models: zero for a perfect model, and bounded by the noise of the measurements."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from marca_env.cascade.outcomes import OutcomeTable
from marca_env.integration import model_errors
from marca_env.scenario.scenario import Scenario
from tests.helpers.factories import ExactLaw, make_cost_log, make_requests


class CostLaw(ExactLaw):
    """Exact law in the form of a cost model."""

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return self.cost(actions, self.results(states, actions))

    def table(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        joint = self.scenario.joint_actions
        pairs = np.repeat(states, len(joint), axis=0), np.tile(joint, (len(states), 1))
        results = self.results(*pairs)
        cost = self.cost(pairs[1], results)
        return results.reshape(len(states), len(joint), -1), cost.reshape(len(states), len(joint), -1)


class RevenueLaw(ExactLaw):
    """Exact law in the form of a revenue model."""

    def table(self, states: np.ndarray) -> np.ndarray:
        joint = self.scenario.joint_actions
        pairs = np.repeat(states, len(joint), axis=0), np.tile(joint, (len(states), 1))
        return self.predict(*pairs).reshape(len(states), -1)


def test_a_cost_map_of_repeats_without_noise_has_no_error(tiny_scenario: Scenario) -> None:
    log = make_cost_log(tiny_scenario)
    twice = pd.concat([log, log.assign(repeat=1)], ignore_index=True)
    errors = model_errors.cost_map_errors(tiny_scenario, twice)
    assert errors["error"] < 1e-9
    assert errors["spread"] < 1e-9
    assert np.isnan(model_errors.cost_map_errors(tiny_scenario, log)["ratio"])


def test_cost_map_error_of_noisy_repeats_is_near_their_spread(tiny_scenario: Scenario) -> None:
    log, rng = make_cost_log(tiny_scenario), np.random.default_rng(0)
    noisy = pd.concat(
        [log.assign(repeat=r, cost=log["cost"] * np.exp(0.1 * rng.standard_normal(len(log)))) for r in range(4)],
        ignore_index=True,
    )
    errors = model_errors.cost_map_errors(tiny_scenario, noisy)
    assert 0.05 < errors["spread"] < 0.15
    assert 0.7 < errors["ratio"] < 1.3


def test_a_perfect_model_has_no_error(tiny_scenario: Scenario) -> None:
    log, law = make_requests(tiny_scenario, 4000), CostLaw(tiny_scenario)
    for errors in model_errors.result_errors(law, log).values():  # type: ignore[arg-type]
        assert errors["mae"] == 0.0
        assert errors["r2"] == 1.0
    assert max(model_errors.cost_errors(law, log).values()) < 1e-6  # type: ignore[arg-type]
    revenue = model_errors.revenue_errors(RevenueLaw(tiny_scenario), log)  # type: ignore[arg-type]
    assert revenue["calibration"] == pytest.approx(1.0, abs=0.1)
    assert 0.1 < revenue["spearman"] < 1.0
    mean = law.table(log[list(tiny_scenario.feature_names)].to_numpy()[:500])[1].mean(axis=(0, 1))
    rows = pd.DataFrame({"component": "request", "cluster": tiny_scenario.cluster_names, "cost": mean * [1.0, 2.0]})
    whole = model_errors.whole_request_errors(law, log, rows)  # type: ignore[arg-type]
    assert whole["retrieval"] == pytest.approx(0.0, abs=1e-6)
    assert whole["ranking"] == pytest.approx(-0.5, abs=1e-6)


def test_unobserved_differences_lower_the_rank_correlation_but_not_by_group(tiny_scenario: Scenario) -> None:
    law, rng = RevenueLaw(tiny_scenario), np.random.default_rng(1)
    states = rng.integers(0, tiny_scenario.feature_sizes, (300, 4))
    exact = law.table(states)
    nothing = np.zeros((300, 36, 3))
    itself = model_errors.truth_errors(law, OutcomeTable(tiny_scenario, states, nothing, {"revenue": exact}))  # type: ignore[arg-type]
    assert itself == pytest.approx({"spearman": 1.0, "by_group": 1.0, "by_action": 1.0, "calibration": 1.0})
    hidden = exact * rng.lognormal(-0.5, 1.0, (300, 1))  # unobserved value of a user, mean 1
    noisy = model_errors.truth_errors(law, OutcomeTable(tiny_scenario, states, nothing, {"revenue": hidden}))  # type: ignore[arg-type]
    assert noisy["spearman"] < 0.9 < noisy["by_group"]
