"""Cost maps fitted to whole requests, and candidates of stages that are not logged."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.models.cost_regression import fit_cost_map
from marca_env.models.nominal_results import nominal_results
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, Stage


def one_cluster() -> Scenario:
    """Build two stages on one cluster: recall with a depth, ranking with a choice of three models."""
    depth = Decision("depth", "queue", (10, 50, 100))
    model = Decision("model", "model", ("off", "small", "large"))
    return Scenario(
        name="one",
        stages=(Stage("recall", "all", (depth,)), Stage("rank", "all", (model,))),
        clusters=(Cluster("all", cores=2.0, budget=1.0),),
        features=(Feature("f", 2),),
        peak_qps=10.0,
    )


def test_a_monotone_law_is_recovered_from_whole_requests() -> None:
    scenario, rng = one_cluster(), np.random.default_rng(0)
    actions = rng.integers(0, (3, 3), (4000, 2))
    queue = np.array([10, 50, 100])[actions[:, 0]]
    results = np.stack([queue, queue], axis=1)
    law = 2.0 + np.sqrt(queue) + np.array([0.0, 0.1, 0.5])[actions[:, 1]] * queue
    cost_map = fit_cost_map(scenario, actions, results, law[:, None])
    np.testing.assert_allclose(cost_map.cost(actions, results)[:, 0], law, rtol=1e-3)
    noisy = fit_cost_map(scenario, actions, results, (law * rng.lognormal(0.0, 0.2, 4000))[:, None])
    np.testing.assert_allclose(noisy.cost(actions, results)[:, 0], law, rtol=0.05)
    for curve in noisy.curves.values():
        assert (np.diff(curve.costs) >= 0).all()
        assert curve.costs[0] >= 0


def test_an_option_never_taken_has_no_negative_cost() -> None:
    """Costs that the rows cannot separate go to the base: an option that is always on must not make the others free."""
    scenario = one_cluster()
    actions = np.tile([[0, 2], [2, 2]], (50, 1))
    queue = np.array([10.0, 50.0, 100.0])[actions[:, 0]]
    results = np.stack([queue, queue], axis=1)
    cost_map = fit_cost_map(scenario, actions, results, np.full((100, 1), 3.0))
    assert cost_map.cost(np.array([[0, 0]]), np.array([[10.0, 10.0]]))[0, 0] == pytest.approx(3.0, rel=0.01)


def test_unlogged_queues_have_their_maximum_length(tiny_scenario: Scenario) -> None:
    actions = np.array([[0, 2, 0, 2], [1, 2, 0, 0], [1, 0, 0, 2]])
    nominal = nominal_results(tiny_scenario, actions)
    assert nominal[1:].tolist() == [[40, 40, 5], [10, 10, 10]]
    assert nominal_results(one_cluster(), np.array([[1, 0]])).tolist() == [[50, 50]]
