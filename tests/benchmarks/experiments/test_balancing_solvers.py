"""The experiment that compares planning methods."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.experiments.balancing_solvers.comparison import compare
from benchmarks.experiments.balancing_solvers.published_shooting import PublishedShooting, WideNetwork
from benchmarks.experiments.balancing_solvers.solver_states import collect_states
from mpc.planning.alternatives.registry import make_planning_method
from mpc.planning.planning_method import PlannerSettings
from tests.helpers.small_system import fitted


@pytest.fixture(scope="module")
def system():
    pool, _, model = fitted()
    return pool, model


SETTINGS = PlannerSettings(horizon=4)


@pytest.fixture(scope="module")
def states(system):
    return collect_states(*system, 5, 0, SETTINGS.horizon)


@pytest.mark.slow
def test_the_solver_experiment_collects_states_and_compares_methods(system, states):
    _, model = system
    top = model.prices.to_log(4 * model.price_limit)
    methods = {name: make_planning_method(name, 2, SETTINGS, top) for name in ("scp", "lbfgsb")}
    rows = compare(states, methods)
    assert len(states) == 5
    assert rows["scp"]["as_good"] == 1.0
    assert rows["scp"]["cpu_ms"][0] > 0


@pytest.mark.slow
def test_published_shooting_plans_with_its_own_network_and_is_evaluated_by_the_model(states):
    _, log, model = fitted()
    network, top = WideNetwork(log, model, seed=0), model.prices.to_log(4 * model.price_limit)
    assert np.all(network.error < 0.5 * np.log(log[["load_retrieval", "load_ranking"]]).std())
    predicted, start, nominal = states[0]
    method = PublishedShooting(network, 2, SETTINGS, top, samples=20)
    result = method.plan(predicted, start, nominal)
    assert result.objective == pytest.approx(float(method.objective(result.plan.loads, start.load, start.target)))
    assert (
        result.objective
        >= make_planning_method("scp", 2, SETTINGS, np.array([5.0, 5.0])).plan(predicted, start, nominal).objective
        - 1e-6
    )
