"""Faults of the model-predictive balancer: each is recorded with its kind, has a defined price, and ends."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest

from benchmarks.experiments.balancing_faults.closed_loop import run_with_faults
from benchmarks.experiments.balancing_faults.faults import (
    FORECAST_FAULTS,
    SOLVER_FAULTS,
    TELEMETRY_FAULTS,
    Panic,
    Unreadable,
)
from marca_env.utils.errors import InputError
from mpc import AdaptiveBalancer, FeedbackBalancer, FeedbackSettings, MPCBalancer, SystemModel, TrafficForecaster
from mpc.controller.telemetry import Timeline
from tests.helpers.small_system import fitted, observe


@pytest.fixture(scope="module")
def system():
    pool, _, model = fitted()
    return pool, model


def kinds(balancer):
    return [(e.kind, e.price) for e in balancer.events]


def running(model, pool, minutes=3, **options):
    """Return a balancer that has planned for some minutes, and its last prices."""
    balancer, prices = MPCBalancer(model, **options), np.full(2, 5.0)
    for k in range(minutes):
        prices = balancer.update(observe(pool, minute=600 + k, prices=prices, load=expected_load(balancer, pool)))
    assert not balancer.events
    return balancer, prices


def expected_load(balancer, pool):
    load = balancer.expected_load
    return pool.scenario.budgets if np.isnan(load).any() else load


# -- telemetry -----------------------------------------------------------------------------------------------------


def test_a_repeated_minute_changes_neither_prices_nor_state(system):
    pool, model = system
    balancer, prices = running(model, pool)
    undisturbed, same = running(model, pool)
    again = balancer.update(observe(pool, minute=602, prices=prices, load=2 * pool.scenario.budgets))
    assert again.tolist() == prices.tolist() == same.tolist()
    assert kinds(balancer) == [("stale", "held")]
    coming = observe(pool, minute=603, prices=prices)
    assert balancer.update(coming) == pytest.approx(undisturbed.update(coming), rel=1e-6)


def test_planning_continues_after_the_clock_was_set_back(system):
    pool, model = system
    balancer, prices = running(model, pool, hold_minutes=2)
    for k in range(5):
        prices = balancer.update(observe(pool, minute=300 + k, prices=prices))
    assert [kind for kind, _ in kinds(balancer)][:2] == ["stale", "stale"]
    assert balancer.result is not None


def test_skipped_minutes_are_recorded_and_planning_continues(system):
    pool, model = system
    balancer, prices = running(model, pool)
    balancer.update(observe(pool, minute=607, prices=prices))
    assert kinds(balancer) == [("gap", "plan")]
    assert "4 control periods" in balancer.events[0].message
    assert balancer.result is not None


def test_a_longer_control_period_is_not_a_gap(system):
    pool, model = system
    timeline = Timeline(patience=2, period=5)
    assert [timeline.advance(m) for m in (1430, 1435, 0, None, 10)] == [0] * 5
    assert timeline.advance(30) == 3
    profile = np.log(np.linspace(100.0, 200.0, 1440))
    balancer, prices = MPCBalancer(model, control_period=5, horizon=4), np.full(2, 5.0)
    for k in range(4):
        prices = balancer.update(observe(pool, minute=600 + 5 * k, prices=prices))
    assert not balancer.events
    forecaster = TrafficForecaster(profile=profile, step=5)
    forecaster.observe(600, float(np.exp(profile[600])))
    assert forecaster.forecast(3) == pytest.approx(np.exp(profile[[605, 610, 615]]))
    assert (forecaster.period, forecaster.copy().step) == (300.0, 5)
    with pytest.raises(InputError, match="control_period"):
        MPCBalancer(model, control_period=0)


def test_without_telemetry_prices_come_from_the_plan_and_are_then_held(system):
    pool, model = system
    balancer, prices = running(model, pool)
    plan, prices_set = balancer.fallback_prices.plan.log_prices.copy(), []
    for k in range(6):
        prices_set.append(balancer.update(observe(pool, minute=603 + k, prices=prices, load=[np.nan, 1.0])))
    assert [price for _, price in kinds(balancer)] == ["plan"] * 3 + ["held"] * 3
    assert np.array(prices_set[:3]) == pytest.approx(model.prices.to_price(plan[:3]))
    assert prices_set[5].tolist() == prices_set[2].tolist()
    balancer.update(observe(pool, minute=609, prices=prices_set[5]))
    assert balancer.result is not None
    assert len(balancer.events) == 6


# -- forecast and solver -------------------------------------------------------------------------------------------
class Forecaster(TrafficForecaster):
    """A forecaster whose answer or error can be set."""

    answer: object = None

    def forecast(self, horizon):
        if isinstance(self.answer, Exception):
            raise self.answer
        return super().forecast(horizon) if self.answer is None else self.answer


@pytest.mark.parametrize(
    "answer", [np.full(10, np.nan), np.full(10, np.inf), np.full(10, -1.0), np.ones(9), KeyError("no data"), "soon"]
)
def test_an_unusable_forecast_is_recorded_and_planning_resumes(system, answer):
    pool, model = system
    forecaster = Forecaster()
    balancer, prices = running(model, pool, forecaster=forecaster)
    forecaster.answer = answer
    prices = balancer.update(observe(pool, minute=603, prices=prices, load=expected_load(balancer, pool)))
    assert kinds(balancer) == [("forecast", "plan")]
    forecaster.answer = None
    balancer.update(observe(pool, minute=604, prices=prices))
    assert balancer.result is not None


@pytest.mark.parametrize(
    ("status", "kind"), [("infeasible", "infeasible"), ("failed", "solver"), ("time limit", "timeout")]
)
def test_a_solver_fault_uses_the_last_plan_and_then_feedback(system, monkeypatch, status, kind):
    pool, model = system
    balancer, prices = running(model, pool, direct=False)
    monkeypatch.setattr(balancer.problem.compiled, "solve", lambda *_: (status, [np.zeros((10, 2))] * 2))
    for k in range(5):
        prices = balancer.update(observe(pool, minute=603 + k, prices=prices))
    assert kinds(balancer) == [(kind, "plan")] * 3 + [(kind, "feedback")] * 2
    monkeypatch.undo()
    balancer.update(observe(pool, minute=608, prices=prices))
    assert balancer.result is not None
    assert len(balancer.events) == 5


def test_a_load_far_from_the_plan_uses_feedback_at_once(system, monkeypatch):
    pool, model = system
    balancer, prices = running(model, pool, direct=False)
    monkeypatch.setattr(balancer.problem.compiled, "solve", lambda *_: ("failed", [np.zeros((10, 2))] * 2))
    overload = observe(pool, minute=603, prices=prices, load=1.5 * pool.scenario.budgets)
    expected_prices = FeedbackBalancer(FeedbackSettings(scale=tuple(model.prices.scale))).update(overload)
    assert balancer.update(overload) == pytest.approx(expected_prices)
    assert kinds(balancer) == [("solver", "feedback")]


def test_feedback_never_gets_an_unknown_price(system, monkeypatch):
    pool, model = system
    balancer, prices = running(model, pool, hold_minutes=0, direct=False)
    monkeypatch.setattr(balancer.problem.compiled, "solve", lambda *_: ("failed", [np.zeros((10, 2))] * 2))
    prices_set = balancer.update(observe(pool, minute=603, prices=(np.nan, np.nan)))
    assert np.all(prices_set > 0.5 * prices)  # not as if the price in force were zero


def test_a_failing_fallback_leaves_the_price_in_force(system, monkeypatch):
    pool, model = system

    class Broken:
        def update(self, observation):
            raise OSError("no")

        def reset(self):
            pass

    balancer = MPCBalancer(model, fallback=Broken())
    monkeypatch.setattr(balancer.planner, "plan", lambda *_: 1 / 0)
    assert balancer.update(observe(pool, prices=(4.0, 3.0))).tolist() == [4.0, 3.0]
    assert kinds(balancer) == [("internal", "held")]


class Hanging:
    """A planner that hangs until it is released."""

    problem = None

    def __init__(self):
        self.released = threading.Event()

    def plan(self, *_):
        self.released.wait()
        raise ArithmeticError("the result of an abandoned plan must not matter")


@pytest.fixture
def hanging():
    planner = Hanging()
    yield planner
    planner.released.set()


def test_planning_comes_back_in_the_next_minute_while_a_planner_still_hangs(system, hanging):
    pool, model = system
    balancer, prices = running(model, pool)
    balancer.settings = dataclasses.replace(balancer.settings, deadline=0.5)
    balancer.planner = hanging
    began = time.perf_counter()
    prices = balancer.update(observe(pool, minute=603, prices=prices, load=expected_load(balancer, pool)))
    assert time.perf_counter() - began < 0.5
    assert kinds(balancer) == [("timeout", "plan")]
    balancer.settings = dataclasses.replace(balancer.settings, deadline=30.0)
    prices = balancer.update(observe(pool, minute=604, prices=prices))
    assert balancer.result is not None
    assert balancer.planner is not hanging
    assert balancer.problem is balancer.planner.problem
    assert (balancer.late_plans, balancer._watchdog.abandoned) == (1, 1)
    assert len(balancer.events) == 1


def test_planners_that_hang_for_ever_are_bounded_and_every_price_is_in_time(system, monkeypatch):
    pool, model = system
    balancer, prices = running(model, pool)
    balancer.settings = dataclasses.replace(balancer.settings, deadline=0.5)
    balancer._watchdog.most, planners = 3, []

    def new_planner():
        planners.append(Hanging())
        return planners[-1]

    new = balancer._new_planner
    monkeypatch.setattr(balancer, "_new_planner", new_planner)
    balancer.planner = new_planner()
    for k in range(5):
        began = time.perf_counter()
        prices = balancer.update(observe(pool, minute=603 + k, prices=prices))
        assert time.perf_counter() - began < 0.5
        assert np.all(np.isfinite(prices))
    assert balancer.late_plans == balancer._watchdog.abandoned == len(planners) == 3
    assert "still run" in balancer.events[-1].message
    planners[0].released.set()
    balancer._watchdog._threads[0].join(5.0)
    balancer.settings = dataclasses.replace(balancer.settings, deadline=30.0)
    monkeypatch.setattr(balancer, "_new_planner", new)
    balancer.update(observe(pool, minute=620, prices=prices))
    assert balancer.result is not None
    for planner in planners:
        planner.released.set()


def test_a_late_planner_that_has_ended_is_used_again(system, monkeypatch):
    pool, model = system
    balancer, prices = running(model, pool)
    planner, plan = balancer.planner, balancer.planner.plan
    balancer.settings = dataclasses.replace(balancer.settings, deadline=0.2)

    def slow(*arguments):
        time.sleep(0.4)
        return plan(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(planner, "plan", slow)
        prices = balancer.update(observe(pool, minute=603, prices=prices, load=expected_load(balancer, pool)))
    balancer._watchdog._threads[0].join(30.0)
    balancer.settings = dataclasses.replace(balancer.settings, deadline=30.0)
    balancer.update(observe(pool, minute=604, prices=prices))
    assert balancer.result is not None
    assert balancer.planner is planner


def test_a_panic_of_the_solver_is_recorded(system, monkeypatch):
    pool, model = system
    balancer, prices = running(model, pool)

    def panic(*_):
        raise Panic("index out of bounds")

    with monkeypatch.context() as patch:
        patch.setattr(balancer.planner, "plan", panic)
        prices = balancer.update(observe(pool, minute=603, prices=prices, load=expected_load(balancer, pool)))
    assert kinds(balancer) == [("internal", "plan")]
    assert "index out of bounds" in balancer.events[0].message


@pytest.mark.parametrize("name", ["load", "qps", "minute", "prices", "budget", "degradation", "backlog"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_an_observation_whose_attributes_raise_ends_in_a_price(system, name, adaptive):
    pool, model = system
    balancer, prices = running(model, pool)
    outer = AdaptiveBalancer(balancer) if adaptive else balancer
    if adaptive:
        balancer.update(observe(pool, minute=600, prices=prices))
        balancer.events.clear()
    minute = 601 if adaptive else 603
    damaged = Unreadable(observe(pool, minute=minute, prices=prices), name)
    after = outer.update(damaged)
    assert after.shape == (2,)
    assert np.all(np.isfinite(after))
    assert np.all((after >= 0) & (after <= balancer.price_max))
    assert [kind for kind, _ in kinds(balancer)] == (
        [] if name == "backlog" else ["missing" if name in ("load", "qps", "minute", "budget") else "telemetry"]
    )
    outer.update(observe(pool, minute=minute + 1, prices=after))
    assert balancer.result is not None


def test_a_forecaster_that_hangs_delays_no_price_and_planning_comes_back_with_it(system):
    pool, model = system
    released = threading.Event()

    class Slow(TrafficForecaster):
        hangs = False

        def forecast(self, horizon):
            if self.hangs:
                released.wait()
            return super().forecast(horizon)

    forecaster = Slow()
    balancer, prices = running(model, pool, forecaster=forecaster, deadline=30.0)
    balancer.settings, forecaster.hangs = dataclasses.replace(balancer.settings, deadline=0.5), True
    for k in range(3):
        began = time.perf_counter()
        prices = balancer.update(observe(pool, minute=603 + k, prices=prices))
        assert time.perf_counter() - began < 0.5
    assert {kind for kind, _ in kinds(balancer)} == {"forecast"}
    forecaster.hangs = False
    released.set()
    for thread in balancer._forecast_watchdog._threads:
        thread.join(5.0)
    balancer.settings = dataclasses.replace(balancer.settings, deadline=30.0)
    balancer.update(observe(pool, minute=606, prices=prices))
    assert balancer.result is not None


def test_a_fallback_balancer_that_hangs_leaves_the_price_in_force(system, monkeypatch):
    pool, model = system
    released = threading.Event()

    class Slow:
        def update(self, observation):
            released.wait()

        def reset(self):
            pass

    balancer = MPCBalancer(model, fallback=Slow(), deadline=0.5)
    monkeypatch.setattr(balancer.planner, "plan", lambda *_: 1 / 0)
    for k in range(2):
        began = time.perf_counter()
        assert balancer.update(observe(pool, minute=600 + k, prices=(4.0, 3.0))).tolist() == [4.0, 3.0]
        assert time.perf_counter() - began < 0.5
    assert kinds(balancer) == [("internal", "held")] * 2
    released.set()


def test_a_deadline_of_infinity_plans(system):
    pool, model = system
    balancer, _ = running(model, pool, deadline=float("inf"))
    assert balancer.result is not None


def test_an_observation_whose_arrays_raise_ends_in_a_price(system):
    pool, model = system
    balancer, prices = running(model, pool)

    class Lazy:
        def __array__(self, *_, **__):
            raise ConnectionError("the metrics store does not answer")

    balancer.update(dataclasses.replace(observe(pool, minute=603, prices=prices), load=Lazy()))
    assert kinds(balancer) == [("missing", "plan")]


# -- the model's limits --------------------------------------------------------------------------------------------
def test_an_hour_outside_the_training_log_is_out_of_range(system):
    pool, _ = system
    _, log, _ = fitted()
    model = SystemModel.fit(log.head(900), epochs=2)  # training ends at about 10:30
    balancer = MPCBalancer(model)
    balancer.update(observe(pool, minute=300))
    assert not balancer.events
    balancer.reset()
    balancer.update(observe(pool, minute=1200))
    assert kinds(balancer) == [("range", "feedback")]
    assert "20:00" in balancer.events[0].message


def test_a_cost_outside_the_training_log_is_out_of_range_until_it_returns(system):
    pool, model = system
    balancer, prices = running(model, pool)
    costly = observe(pool, minute=603, qps=100.0, load=[40.0, 6.0], prices=prices)
    prices = balancer.update(costly)
    assert kinds(balancer) == [("range", "feedback")]
    assert "retrieval uses 0.4 core-seconds per request" in balancer.events[0].message
    balancer.update(observe(pool, minute=604, prices=prices))
    assert balancer.result is not None
    assert MPCBalancer(model, range_slack=1e6).update(costly).shape == (2,)


def test_another_model_can_be_adopted_while_running(system):
    pool, model = system
    _, log, _ = fitted()
    balancer, prices = running(model, pool)
    newer = SystemModel.fit(log.iloc[1440:].reset_index(drop=True), epochs=20, seed=4)
    balancer.adopt(newer)
    following = balancer.update(observe(pool, minute=603, prices=prices))
    assert balancer.model is newer
    assert balancer.result is not None
    assert not balancer.events
    assert following == pytest.approx(prices, rel=0.5)
    other_clusters = SystemModel.fit(log.rename(columns=lambda c: c.replace("ranking", "scoring")), epochs=1)
    with pytest.raises(InputError, match="scoring"):
        balancer.adopt(other_clusters)


def test_the_margin_grows_with_the_disagreement_of_the_ensemble(system):
    pool, model = system
    _, log, _ = fitted()
    with pytest.raises(InputError, match="members"):
        MPCBalancer(model, margin_deviations=1.0)
    ensemble = SystemModel.fit(log.head(2160), epochs=15, members=3)
    aims = []
    for deviations in (0.0, 1.0, 3.0):
        balancer = MPCBalancer(ensemble, margin_deviations=deviations, tilt_gain=0.0)
        balancer.update(observe(pool))
        aims.append(balancer.expected_load / pool.scenario.budgets)
    assert aims[0] == pytest.approx([0.995, 0.995], abs=2e-3)
    assert np.all(aims[1] < aims[0])
    assert np.all(aims[2] < aims[1])


# -- all together --------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_random_faults_never_raise_and_prices_stay_within_bounds(system):
    pool, model = system
    summary = run_with_faults(pool, model, 700, seed=3, chance=0.2)
    assert summary["violations"] == {}
    assert summary["late"] == 0
    assert set(summary["replanned"]) == {"1"}  # planning works again in the first minute after every fault
    assert len(summary["injected"]) > 0.6 * len(TELEMETRY_FAULTS + FORECAST_FAULTS + SOLVER_FAULTS)
    assert {name.split("/")[0] for name in summary["events"]} >= {
        "telemetry", "missing", "stale", "forecast", "solver", "gap"
    }  # fmt: skip
    assert np.all(np.array(summary["utilisation"]) > 0.85)
