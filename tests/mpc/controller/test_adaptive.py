"""The adaptive balancer: it notices drift, and adopts a refit only if it is better."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from benchmarks.experiments.balancing_adaptation.changing_system import ChangingSystem, with_costs, with_machines
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.workload import Traffic
from marca_env.utils.errors import InputError
from mpc import AdaptationSettings, AdaptiveBalancer, MPCBalancer
from mpc.model.refit import Refit
from tests.helpers.small_system import fitted, observe

WITHOUT_TIME_LIMIT = AdaptationSettings(seconds=np.inf)


@pytest.fixture(scope="module")
def system():
    return fitted()


# -- the balancer --------------------------------------------------------------------------------------------------
def changed_run(system, after, balancer, minutes=110, change=30, seed=0):
    pool, _, _ = system
    traffic = Traffic("steady", np.full(minutes, 300.0), 600)
    world = ChangingSystem(pool, traffic, draw_arrivals(pool, traffic, seed), after=after, change=change)
    observation, loads = world.start(np.full(2, 5.0)), []
    for _ in range(minutes):
        prices = balancer.update(observation)
        assert np.all(np.isfinite(prices))
        outcome, observation = world.step(prices)
        loads.append(outcome.equivalent / world.clusters.budgets)
    return np.array(loads)


def kinds(balancer):
    return [a.kind for a in balancer.adaptations]


@pytest.fixture(scope="module")
def doubled(system):
    """Run a balancer through a doubling of the cost of ranking; return it and its loads."""
    balancer = AdaptiveBalancer(MPCBalancer(system[2]), WITHOUT_TIME_LIMIT, seed=3)
    return balancer, changed_run(system, with_costs(system[0], "ranking", 2.0), balancer)


@pytest.mark.slow
def test_a_change_of_cost_is_noticed_and_a_refit_adopted(system, doubled):
    balancer, loads = doubled
    assert kinds(balancer)[0] == "noticed"
    assert "adopted" in kinds(balancer)
    assert 630 <= balancer.adaptations[0].minute <= 636
    assert balancer.balancer.model is not system[2]
    assert np.abs(loads[80:] - 1).mean() < 0.05


@pytest.mark.slow
def test_a_refit_is_used_again_after_a_restart(system, doubled, tmp_path):
    before, _ = doubled
    state = json.loads(json.dumps(before.state_dict()))
    before.save_model(tmp_path)
    after = AdaptiveBalancer(MPCBalancer(system[2]), WITHOUT_TIME_LIMIT, seed=3)
    assert after.load_model(tmp_path, state)
    after.load_state_dict(state)
    assert (after.adopted, after.state_dict()["refit"]) == (before.adopted, state["refit"])
    assert after.state_dict()["balancer"]["correction"] == state["balancer"]["correction"]
    weights = [b.balancer.model.response.state_dict() for b in (before, after)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_a_refit_of_another_model_is_not_used(system, doubled, tmp_path):
    """A newer model that the user gives counts more; the corrections of the refit are dropped with it."""
    before, _ = doubled
    before.save_model(tmp_path)
    state = before.state_dict()
    newer = copy.deepcopy(system[2])
    with torch.no_grad():
        next(iter(newer.response.parameters())).mul_(1.01)
    after = AdaptiveBalancer(MPCBalancer(newer))
    assert not after.load_model(tmp_path, state)
    after.load_state_dict(state)
    assert after.balancer.model is newer
    assert after.state_dict()["balancer"]["correction"] == MPCBalancer(newer).state_dict()["correction"]
    with pytest.raises(InputError, match="usual_error"):
        AdaptiveBalancer(MPCBalancer(system[2])).load_model(tmp_path, {"refit": {**state["refit"], "usual_error": [0]}})


@pytest.mark.slow
def test_the_same_seed_gives_the_same_adaptations(system, doubled):
    again = AdaptiveBalancer(MPCBalancer(system[2]), WITHOUT_TIME_LIMIT, seed=3)
    loads = changed_run(system, with_costs(system[0], "ranking", 2.0), again)
    assert loads == pytest.approx(doubled[1])
    assert list(again.adaptations) == list(doubled[0].adaptations)


def test_lost_machines_need_no_refit(system):
    balancer = AdaptiveBalancer(MPCBalancer(system[2]))
    loads = changed_run(system, with_machines(system[0], 2 / 3), balancer, minutes=60)
    assert "adopted" not in kinds(balancer)
    assert np.abs(loads[35:] - 1).mean() < 0.05
    assert loads[30].max() > 1.2  # the minute of the loss itself is overloaded


def test_a_refit_that_is_not_better_is_dropped(system):
    settings = AdaptationSettings(threshold=1e-6, gain=0.5)
    balancer = AdaptiveBalancer(MPCBalancer(system[2]), settings)
    changed_run(system, None, balancer, minutes=45)
    assert set(kinds(balancer)) == {"noticed", "dropped"}
    assert balancer.balancer.model is system[2]


def test_a_failing_refit_is_recorded_and_does_not_change_the_price(system, monkeypatch):
    settings = AdaptationSettings(threshold=1e-6)
    balancer = AdaptiveBalancer(MPCBalancer(system[2]), settings)

    def broken(*_):
        raise ArithmeticError("the loss of the refit is not finite")

    monkeypatch.setattr(Refit, "advance", broken)
    changed_run(system, None, balancer, minutes=45)
    assert "failed" in kinds(balancer)
    assert "not finite" in next(a.message for a in balancer.adaptations if a.kind == "failed")
    assert not balancer.events


def test_damaged_telemetry_splits_the_log_and_does_not_fail(system):
    pool, _, model = system
    balancer = AdaptiveBalancer(MPCBalancer(model))
    for k, load in enumerate([None, None, [np.nan, 1.0], None, None, None]):
        balancer.update(observe(pool, minute=600 + k, load=load))
    balancer.update(observe(pool, minute=620))
    log = balancer._log(0)
    assert log["day"].nunique() == 3  # before the damage, after it, after the gap
    assert not any(a.kind == "failed" for a in balancer.adaptations)
    balancer.reset()
    assert len(balancer._log(0)) == 0


def test_impossible_settings_are_refused():
    for changes in ({"least": 10}, {"window": 15}, {"growth": 1.0}, {"steps": 0}, {"gain": 1.0}, {"threshold": 0.0}):
        with pytest.raises(InputError):
            AdaptationSettings(**changes)


def test_a_model_without_a_report_is_refused(system, monkeypatch):
    monkeypatch.setattr(system[2], "report", {})
    with pytest.raises(InputError, match="report"):
        AdaptiveBalancer(MPCBalancer(system[2]))
