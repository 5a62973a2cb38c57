"""The experiment that compares planning methods."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.experiments.balancing_solvers.comparison import compare
from benchmarks.experiments.balancing_solvers.far_states import SCP, TRUE_LAW, compare_far, summarise_far
from benchmarks.experiments.balancing_solvers.generated_system import GeneratedSystem
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


@pytest.mark.slow
def test_plans_far_from_the_budget_are_compared_by_the_model_and_by_the_true_law():
    options = {"off": 0.3, "threshold": 44 / 46, "load_error": 0.004, "epochs": 4, "states": 2}
    run = compare_far(**options, seed=1)
    summary = summarise_far([run])
    assert summary["states"] == 2
    assert summary["as_good"][SCP] == 1.0
    assert summary["worst"][SCP] <= min(summary["worst"].values()) + 0.01
    assert set(summary["true"]) == set(TRUE_LAW)
    assert all(len(run[name]["cpu_ms"]) == 2 for name in run if isinstance(run[name], dict))
    repeated = compare_far(**options, seed=1)
    assert repeated[SCP]["own"] == run[SCP]["own"]


def test_the_law_of_a_generated_system_is_that_of_its_log():
    system = GeneratedSystem(2, seed=3)
    log = system.log()
    prices, minute = log[["price_c0", "price_c1"]].to_numpy(), log["minute"].to_numpy()
    mean = np.log(log[["load_c0", "load_c1"]].to_numpy() / log[["qps"]].to_numpy()) - system.log_costs(prices, minute)
    assert np.abs(mean.mean(0)).max() < 1e-3
    assert mean.std(0) == pytest.approx(0.01, rel=0.1)
