"""Experiment ``fidelity``: slices and agreement by hand, baselines on a known law, everything on a small scenario."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmarks.experiments.fidelity import baselines, experiment, fitted_models, revenue_calibration
from benchmarks.experiments.fidelity.policy_ranking import agreement, policies
from benchmarks.experiments.fidelity.shipped_models import judge_environment
from benchmarks.suite.api import Case, Row
from marca_env.cascade.outcomes import OutcomeTable
from marca_env.integration import model_errors
from marca_env.models.cost_map import CostMap
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.factories import ExactLaw, make_cost_log


def law_table(scenario: Scenario, n: int, seed: int = 5, sigma: float = 0.3) -> OutcomeTable:
    """Return unseen requests whose true revenue is the law's times an unobserved factor of the user."""
    rng, law, joint = np.random.default_rng(seed), ExactLaw(scenario), scenario.joint_actions
    states = rng.integers(0, scenario.feature_sizes, (n, len(scenario.features)))
    pairs = np.repeat(states, len(joint), axis=0), np.tile(joint, (n, 1))
    revenue = law.predict(*pairs).reshape(n, -1) * rng.lognormal(-(sigma**2) / 2, sigma, (n, 1))
    return OutcomeTable(scenario, states, law.results(*pairs).reshape(n, len(joint), -1), {"revenue": revenue})


# -- slices ------------------------------------------------------------------------------------------------
def test_errors_of_a_slice_are_weighted_by_spend(tiny_scenario: Scenario) -> None:
    states = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 0]])
    true = np.tile(np.arange(1.0, 37.0), (4, 1)) * np.array([1.0, 3.0, 2.0, 2.0])[:, None]
    predicted = np.where(states[:, :1] == 1, 2.0, 1.0) * true
    rows = {(r["slice"], r["group"]): r for r in revenue_calibration.slice_rows(tiny_scenario, states, predicted, true)}
    assert rows["uv", "0"]["pe"] == 0.0
    assert rows["uv", "1"]["pe"] == pytest.approx(1.0)
    assert rows["uv", "1"]["pe_interval"] == pytest.approx([1.0, 1.0])
    assert rows["uv", "1"]["share"] == pytest.approx(0.5)
    assert rows["w×g", "1, 1"]["pe"] == pytest.approx(2.0 / 5.0)
    assert rows["all", ""]["pe"] == pytest.approx(0.5)
    assert rows["all", ""]["spend"] == pytest.approx(2.0 * 18.5)
    assert rows["uv", "0"]["spearman"] == pytest.approx(1.0)
    low, high = rows["all", ""]["pe_interval"]
    assert low < 0.5 < high
    last = [r["pe"] for (name, _), r in rows.items() if name == "truncation"]
    assert last == pytest.approx([0.5] * 3)
    summary = {r["slice"]: r for r in revenue_calibration.slice_summary(tiny_scenario, states, predicted, true)}
    assert summary["uv"]["pe"] == pytest.approx(0.5)
    assert summary["uv"]["abs_pe"] == pytest.approx(0.5)
    assert summary["truncation"]["spearman"] == pytest.approx(1.0)
    assert summary["all"]["spearman"] is None


def test_chance_is_the_error_from_drawing_other_requests(tiny_scenario: Scenario) -> None:
    rng, states = np.random.default_rng(0), np.zeros((100, 4), dtype=int)
    alike = np.tile(rng.random(36), (100, 1))
    assert revenue_calibration.slice_summary(tiny_scenario, states, alike, alike)[0]["chance"] == pytest.approx(
        0.0, abs=1e-9
    )
    uneven = alike * rng.exponential(size=(100, 1))
    chance = revenue_calibration.slice_summary(tiny_scenario, states, uneven, uneven)[0]["chance"]
    assert chance == pytest.approx(np.sqrt(2 / np.pi) / 10, rel=0.35)  # the mean of 100 exponentials
    with pytest.raises(InputError, match="tables of shapes"):
        revenue_calibration.slice_rows(tiny_scenario, states, alike, alike[:, 1:])


# -- policies ----------------------------------------------------------------------------------------------
def test_agreement_equals_values_by_hand() -> None:
    live = np.array([[1.0, 1.2], [2.0, 2.2], [4.0, 4.2]])
    same = agreement(3 * live, live)
    assert (same["tau"], same["interval"], same["best"]) == (1.0, [1.0, 1.0], 1.0)
    turned = agreement(-live, live)
    assert turned["tau"] == -1.0
    assert turned["best"] == pytest.approx(1.1 / 4.1)
    swapped = agreement(live[[1, 0, 2]], live)
    assert swapped["tau"] == pytest.approx(1 / 3)
    noisy = np.random.default_rng(0).normal(np.arange(5.0)[:, None], 20.0, (5, 60))
    low, high = agreement(noisy, np.arange(5.0)[:, None] + np.zeros((5, 60)))["interval"]
    assert low < high


def test_policies_differ_and_are_seeded(exact_engine: Engine) -> None:
    states = exact_engine.population.states
    chosen, prices = policies(exact_engine, states, 0)
    again, _ = policies(exact_engine, states, 0)
    other, _ = policies(exact_engine, states, 1)
    assert len(chosen) >= 8
    assert all((chosen[k] == again[k]).all() for k in chosen)
    assert (chosen["random"] != other["random"]).any()
    values, costs = exact_engine.table(states)
    rows = np.arange(len(states))
    assert (values[rows, chosen["greedy at 0"]] == values.max(axis=1)).all()
    spent = [costs[rows, chosen[f"greedy at {k}"]].sum() for k in ("0", "λ/4", "λ", "4λ", "16λ")]
    assert spent == sorted(spent, reverse=True)
    assert prices.max() > 0
    assert len({tuple(a) for a in chosen.values()}) > 8


# -- baselines ------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_baselines_learn_the_law(tiny_scenario: Scenario, tiny_requests: pd.DataFrame) -> None:
    table = law_table(tiny_scenario, 40, sigma=0.0)
    pairs = fitted_models.unseen_pairs(table, 2000)
    for fit in (baselines.tree_results, baselines.net_results):
        model = fit(tiny_scenario, tiny_requests, 0)
        errors = model_errors.result_errors(model, pairs)  # type: ignore[arg-type]
        assert min(e["r2"] for e in errors.values()) > 0.98
        assert model.size > 100
    for fit in (baselines.tree_revenue, baselines.net_revenue):
        model = fit(tiny_scenario, tiny_requests, 0)
        truth = model_errors.truth_errors(model, table)  # type: ignore[arg-type]
        assert truth["by_action"] > 0.8
        assert truth["calibration"] == pytest.approx(1.0, abs=0.2)
        states, joint = table.states[:3], tiny_scenario.joint_actions
        one = model.predict(np.repeat(states, 36, axis=0), np.tile(joint, (3, 1))).reshape(3, 36)
        np.testing.assert_allclose(model.table(states), one, rtol=1e-5)


def test_baselines_with_the_same_seed_are_equal(tiny_scenario: Scenario, tiny_requests: pd.DataFrame) -> None:
    log, states = tiny_requests[:800], np.zeros((1, 4), dtype=int)
    one, two, other = (baselines.net_revenue(tiny_scenario, log, seed, epochs=2).table(states) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


# -- the experiment ----------------------------------------------------------------------------------------
def test_the_error_of_the_cost_map_is_divided_among_clusters(tiny_scenario: Scenario) -> None:
    log, rng = make_cost_log(tiny_scenario), np.random.default_rng(0)
    ranking = (log["cluster"] == "ranking").to_numpy()
    noisy = pd.concat(
        [
            log.assign(repeat=r, cost=log["cost"] * np.exp(0.1 * ranking * rng.standard_normal(len(log))))
            for r in range(3)
        ],
        ignore_index=True,
    )
    each = model_errors.cluster_map_errors(tiny_scenario, noisy)
    assert each["retrieval"]["error"] < 1e-9
    assert 0.05 < each["ranking"]["spread"] < 0.15
    assert 0 < model_errors.cost_map_errors(tiny_scenario, noisy)["error"] < each["ranking"]["error"]


@pytest.mark.slow
def test_everything_on_a_small_scenario(
    tiny_engine: Engine, tiny_requests: pd.DataFrame, exact_law: ExactLaw, tmp_path: Path
) -> None:
    scenario, table = tiny_engine.scenario, law_table(tiny_engine.scenario, 60)
    costs, rng = make_cost_log(scenario), np.random.default_rng(0)
    mean = exact_law.cost(scenario.joint_actions, table.results).mean(axis=(0, 1))
    whole = costs[: len(mean)].assign(component="request", cluster=scenario.cluster_names, cost=mean * 1.25)
    whole["stage"] = ["retrieval", "ranking"]
    noisy = [costs.assign(repeat=r, cost=costs["cost"] * rng.lognormal(0, 0.05, len(costs))) for r in range(3)]
    cost_log = pd.concat([*noisy, whole], ignore_index=True)
    found = judge_environment(tiny_engine, table, cost_log)
    assert found["requests"] == 60
    assert {row["cluster"] for row in found["costs"]} == {"retrieval", "ranking"}
    for row in found["costs"]:
        assert row["ratio"] == pytest.approx((row["map"] + row["results"]) / row["spread"])
        assert row["whole"] == pytest.approx(-0.2, abs=0.08)
    assert [row["slice"] for row in found["slices"]][:3] == ["all", "uv", "w×g"]
    assert {row["of"] for row in found["ranking"]} == {"revenue", "revenue − Σ λ C"}
    assert found["ranking"][0]["tau"] > 0.6
    assert len(found["policies"]) >= 8
    rows = [Row(Case(experiment.SHIPPED, 0, task=experiment.ENVIRONMENT), found, 1.0)]
    log, cost_map = tiny_requests[:2000], CostMap.from_log(scenario, cost_log)
    for model in fitted_models.RESULT_MODELS:
        results = fitted_models.result_rows(model, 0, log, table, cost_map)
        assert len(results) == 2 * 3  # held out and unseen rows, stages
        rows.append(Row(Case(model, 0, task=experiment.RESULTS), {"results": results}, 1.0))
    for model in fitted_models.REVENUE_MODELS:
        revenue = fitted_models.revenue_row(model, 0, log, table)
        rows.append(Row(Case(model, 0, task=experiment.REVENUE), {"revenue": [revenue]}, 1.0))
    (figure,) = experiment.figures(rows, tmp_path).values()
    assert figure.stat().st_size > 10_000
    console = Console(width=160, record=True, file=(tmp_path / "tables.txt").open("w"))
    for table_of_rows in experiment.tables(rows):
        console.print(table_of_rows)
    text = console.export_text()
    for name in ("MMoE-DCN", "boosted trees", "Kendall's τ", "greedy at λ/4", "chance alone"):
        assert name in text


def test_every_model_is_a_case_with_every_seed() -> None:
    cases = experiment.cases(quick=True, seeds=(0, 1))
    assert len({case.key for case in cases}) == len(cases) == 1 + 2 * 3 * 2  # shipped; tasks, models, seeds
