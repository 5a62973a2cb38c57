"""Never stuck: every fault is an event of its kind, has a defined price, and ends."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from benchmarks.experiments.balancing_faults.closed_loop import run_with_faults
from benchmarks.experiments.balancing_faults.faults import FORECAST_FAULTS, SOLVER_FAULTS, TELEMETRY_FAULTS
from marca_env.utils.errors import InputError
from mpc import FeedbackBalancer, FeedbackSettings, MPCBalancer, SystemModel, TrafficForecaster
from mpc.controller.bias_correction import BiasCorrection
from mpc.controller.telemetry import FaultError, Timeline, check_observation
from mpc.planning.deadline import DeadlineError, Watchdog
from tests.helpers.small_system import fitted, observe


@pytest.fixture(scope="module")
def plant():
    pool, _, model = fitted()
    return pool, model


def kinds(balancer):
    return [(e.kind, e.price) for e in balancer.events]


def running(model, pool, minutes=3, **options):
    """A balancer that has planned for some minutes, and what it set last."""
    balancer, prices = MPCBalancer(model, **options), np.full(2, 5.0)
    for k in range(minutes):
        prices = balancer.update(observe(pool, minute=600 + k, prices=prices, load=expected(balancer, pool)))
    assert not balancer.events
    return balancer, prices


def expected(balancer, pool):
    load = balancer.expected_load
    return pool.scenario.budgets if np.isnan(load).any() else load


# -- telemetry -----------------------------------------------------------------------------------------------------
def test_a_reading_is_numbers_of_the_right_shape(plant):
    pool, _ = plant
    names, good = pool.scenario.cluster_names, observe(pool)
    reading = check_observation(dataclasses.replace(good, degradation=np.array([np.nan, 2.0])), names, True)
    assert reading.degradation.tolist() == [0, 2]
    for changes in (
        {"load": None},
        {"load": np.ones(3)},
        {"load": np.array(["x", "y"])},
        {"qps": "n/a"},
        {"minute": np.nan},
        {"minute": None},
        {"budget": np.array([1.0, 0.0])},
    ):
        with pytest.raises(FaultError) as caught:
            check_observation(dataclasses.replace(good, **changes), names, False)
        assert caught.value.kind == "telemetry"
    with pytest.raises(InputError, match="fit one on a log of this scenario"):
        check_observation(dataclasses.replace(good, load=np.ones(3)), names, True)
    with pytest.raises(FaultError):
        check_observation(object(), names, True)


def test_the_timeline_tells_repeats_gaps_and_a_clock_that_was_set():
    timeline = Timeline(patience=2)
    assert [timeline.advance(m) for m in (1438, 1439, 0, 1, None, 3)] == [0] * 6
    assert timeline.advance(8) == 4
    for minute in (8, 5):
        with pytest.raises(FaultError) as caught:
            timeline.advance(minute)
        assert caught.value.kind == "stale"
    timeline.advance(6)  # a third one in a row: the clock was set back
    assert timeline.advance(7) == 0
    timeline.reset()
    assert timeline.advance(100) == 0


def test_a_repeated_minute_changes_nothing(plant):
    pool, model = plant
    balancer, prices = running(model, pool)
    other, same = running(model, pool)
    again = balancer.update(observe(pool, minute=602, prices=prices, load=2 * pool.scenario.budgets))
    assert again.tolist() == prices.tolist() == same.tolist()
    assert kinds(balancer) == [("stale", "held")]
    coming = observe(pool, minute=603, prices=prices)
    assert balancer.update(coming) == pytest.approx(other.update(coming), rel=1e-6)


def test_a_clock_that_was_set_back_does_not_stop_the_balancer(plant):
    pool, model = plant
    balancer, prices = running(model, pool, hold_minutes=2)
    for k in range(5):
        prices = balancer.update(observe(pool, minute=300 + k, prices=prices))
    assert [kind for kind, _ in kinds(balancer)][:2] == ["stale", "stale"]
    assert balancer.result is not None


def test_skipped_minutes_are_an_event_and_are_planned_through(plant):
    pool, model = plant
    balancer, prices = running(model, pool)
    balancer.update(observe(pool, minute=607, prices=prices))
    assert kinds(balancer) == [("gap", "plan")]
    assert "4 control periods" in balancer.events[0].message
    assert balancer.result is not None


def test_a_longer_control_period_is_no_gap(plant):
    pool, model = plant
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


def test_missing_telemetry_is_served_from_the_plan_and_then_holds(plant):
    pool, model = plant
    balancer, prices = running(model, pool)
    plan, seen = balancer.fallback_prices.plan.log_prices.copy(), []
    for k in range(6):
        seen.append(balancer.update(observe(pool, minute=603 + k, prices=prices, load=[np.nan, 1.0])))
    assert [price for _, price in kinds(balancer)] == ["plan"] * 3 + ["held"] * 3
    assert np.array(seen[:3]) == pytest.approx(model.prices.to_price(plan[:3]))
    assert seen[5].tolist() == seen[2].tolist()
    balancer.update(observe(pool, minute=609, prices=seen[5]))
    assert balancer.result is not None
    assert len(balancer.events) == 6


# -- forecast and solver -------------------------------------------------------------------------------------------
class Forecaster(TrafficForecaster):
    """What it returns or raises can be set."""

    answer: object = None

    def forecast(self, horizon):
        if isinstance(self.answer, Exception):
            raise self.answer
        return super().forecast(horizon) if self.answer is None else self.answer


@pytest.mark.parametrize(
    "answer", [np.full(10, np.nan), np.full(10, np.inf), np.full(10, -1.0), np.ones(9), KeyError("no data"), "soon"]
)
def test_an_unusable_forecast_is_an_event_and_ends(plant, answer):
    pool, model = plant
    forecaster = Forecaster()
    balancer, prices = running(model, pool, forecaster=forecaster)
    forecaster.answer = answer
    prices = balancer.update(observe(pool, minute=603, prices=prices, load=expected(balancer, pool)))
    assert kinds(balancer) == [("forecast", "plan")]
    forecaster.answer = None
    balancer.update(observe(pool, minute=604, prices=prices))
    assert balancer.result is not None


@pytest.mark.parametrize(
    ("status", "kind"), [("infeasible", "infeasible"), ("failed", "solver"), ("time limit", "timeout")]
)
def test_the_last_good_plan_and_then_feedback(plant, monkeypatch, status, kind):
    pool, model = plant
    balancer, prices = running(model, pool, direct=False)
    monkeypatch.setattr(balancer.problem.compiled, "solve", lambda *_: (status, [np.zeros((10, 2))] * 2))
    for k in range(5):
        prices = balancer.update(observe(pool, minute=603 + k, prices=prices))
    assert kinds(balancer) == [(kind, "plan")] * 3 + [(kind, "feedback")] * 2
    monkeypatch.undo()
    balancer.update(observe(pool, minute=608, prices=prices))
    assert balancer.result is not None
    assert len(balancer.events) == 5


def test_a_load_that_left_the_plan_is_fed_back_at_once(plant, monkeypatch):
    pool, model = plant
    balancer, prices = running(model, pool, direct=False)
    monkeypatch.setattr(balancer.problem.compiled, "solve", lambda *_: ("failed", [np.zeros((10, 2))] * 2))
    overload = observe(pool, minute=603, prices=prices, load=1.5 * pool.scenario.budgets)
    expected_prices = FeedbackBalancer(FeedbackSettings(scale=tuple(model.prices.scale))).update(overload)
    assert balancer.update(overload) == pytest.approx(expected_prices)
    assert kinds(balancer) == [("solver", "feedback")]


def test_feedback_never_sees_a_price_that_is_not_known(plant, monkeypatch):
    pool, model = plant
    balancer, prices = running(model, pool, hold_minutes=0, direct=False)
    monkeypatch.setattr(balancer.problem.compiled, "solve", lambda *_: ("failed", [np.zeros((10, 2))] * 2))
    told = balancer.update(observe(pool, minute=603, prices=(np.nan, np.nan)))
    assert np.all(told > 0.5 * prices)  # not as if computation had been free


def test_a_fallback_that_fails_too_leaves_the_price(plant, monkeypatch):
    pool, model = plant

    class Broken:
        def update(self, observation):
            raise OSError("no")

        def reset(self):
            pass

    balancer = MPCBalancer(model, fallback=Broken())
    monkeypatch.setattr(balancer.planner, "plan", lambda *_: 1 / 0)
    assert balancer.update(observe(pool, prices=(4.0, 3.0))).tolist() == [4.0, 3.0]
    assert kinds(balancer) == [("internal", "held")]


def test_a_planner_that_hangs_is_left_behind_and_used_again_when_it_is_done(plant, monkeypatch):
    pool, model = plant
    balancer, prices = running(model, pool)
    balancer.settings = dataclasses.replace(balancer.settings, deadline=0.4)
    plan = balancer.planner.plan

    def slow(*arguments):
        time.sleep(1.2)
        return plan(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(balancer.planner, "plan", slow)
        began = time.perf_counter()
        prices = balancer.update(observe(pool, minute=603, prices=prices, load=expected(balancer, pool)))
        assert time.perf_counter() - began < 1.1
    prices = balancer.update(observe(pool, minute=604, prices=prices))  # it still runs
    assert [e.kind for e in balancer.events] == ["timeout", "timeout"]
    assert "still runs" in balancer.events[1].message
    time.sleep(1.5)
    balancer.settings = dataclasses.replace(balancer.settings, deadline=30.0)
    balancer.update(observe(pool, minute=605, prices=prices))
    assert balancer.result is not None


def test_the_watchdog_hands_on_results_and_errors():
    watchdog = Watchdog()
    assert watchdog.run(lambda: 7, 5.0) == 7
    with pytest.raises(ZeroDivisionError):
        watchdog.run(lambda: 1 // 0, 5.0)
    with pytest.raises(DeadlineError, match="longer than"):
        watchdog.run(lambda: time.sleep(0.5), 0.05)
    assert watchdog.busy
    with pytest.raises(DeadlineError, match="still runs"):
        watchdog.run(lambda: 7, 5.0)
    time.sleep(0.8)
    assert watchdog.run(lambda: 7, 5.0) == 7


# -- the model's limits --------------------------------------------------------------------------------------------
def test_an_hour_that_the_model_has_not_seen_is_out_of_range(plant):
    pool, _ = plant
    _, log, _ = fitted()
    model = SystemModel.fit(log.head(900), epochs=2)  # training ends at about 10:30
    balancer = MPCBalancer(model)
    balancer.update(observe(pool, minute=300))
    assert not balancer.events
    balancer.reset()
    balancer.update(observe(pool, minute=1200))
    assert kinds(balancer) == [("range", "feedback")]
    assert "20:00" in balancer.events[0].message


def test_a_cost_beyond_all_training_is_out_of_range_until_it_is_back(plant):
    pool, model = plant
    balancer, prices = running(model, pool)
    dear = observe(pool, minute=603, qps=100.0, load=[40.0, 6.0], prices=prices)
    prices = balancer.update(dear)
    assert kinds(balancer) == [("range", "feedback")]
    assert "retrieval uses 0.4 core-seconds per request" in balancer.events[0].message
    balancer.update(observe(pool, minute=604, prices=prices))
    assert balancer.result is not None
    assert MPCBalancer(model, range_slack=1e6).update(dear).shape == (2,)


def test_another_model_can_be_adopted_while_running(plant):
    pool, model = plant
    _, log, _ = fitted()
    balancer, prices = running(model, pool)
    newer = SystemModel.fit(log.iloc[1440:].reset_index(drop=True), epochs=20, seed=4)
    balancer.adopt(newer)
    following = balancer.update(observe(pool, minute=603, prices=prices))
    assert balancer.model is newer
    assert balancer.result is not None
    assert not balancer.events
    assert following == pytest.approx(prices, rel=0.5)
    other = SystemModel.fit(log.rename(columns=lambda c: c.replace("ranking", "scoring")), epochs=1)
    with pytest.raises(InputError, match="scoring"):
        balancer.adopt(other)


def test_the_margin_grows_with_the_ensemble_s_disagreement(plant):
    pool, model = plant
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


# -- corrections ---------------------------------------------------------------------------------------------------
def closed(tilt_gain, slope=-4.5, believed=-1.0, minutes=60, seed=0):
    """Deviations from the budget when log cost has another slope than the model believes, traffic wandering."""
    rng, correction = np.random.default_rng(seed), BiasCorrection(1, 0.2, 4.0, tilt_gain)
    u, moved, deviations = np.zeros(1), np.zeros(1), []
    demand = np.cumsum(rng.normal(0, 0.01, minutes + 1))
    expected_log = None
    for k in range(minutes):
        log_cost = slope * u + rng.normal(0, 0.004, 1)
        if expected_log is not None:
            correction.update(log_cost, expected_log, moved, 1e5)
        deviations.append(float(log_cost[0] + demand[k]))
        # the price that the corrected model says brings demand and cost to the budget, from here
        total = believed + correction.tilt
        step = (-demand[k + 1] - believed * u - correction.bias) / total
        step = np.clip(step, -0.5, 0.5)
        expected_log = believed * (u + step) + correction.bias + correction.tilt * 0.15 * np.tanh(step / 0.15)
        moved, u = step, u + step
    return np.array(deviations)


def test_a_slope_that_is_too_flat_is_learnt_and_the_swing_ends():
    kept, learnt = (np.abs([closed(gain, seed=s)[20:] for s in range(5)]).mean() for gain in (0.0, 0.5))
    assert kept > 0.03
    assert learnt < 0.5 * kept


def test_a_right_slope_is_left_alone():
    plain, learning = (np.abs([closed(g, slope=-1.0, seed=s)[20:] for s in range(5)]).mean() for g in (0.0, 0.5))
    assert learning < 1.3 * plain


# -- all together --------------------------------------------------------------------------------------------------
def test_random_faults_never_raise_nor_leave_a_price_out_of_bounds(plant):
    pool, model = plant
    found = run_with_faults(pool, model, 700, seed=3, chance=0.2)
    assert found["violations"] == {}
    assert found["late"] == 0
    assert len(found["injected"]) > 0.6 * len(TELEMETRY_FAULTS + FORECAST_FAULTS + SOLVER_FAULTS)
    assert {name.split("/")[0] for name in found["events"]} >= {"telemetry", "stale", "forecast", "solver", "gap"}
    assert np.all(np.array(found["utilisation"]) > 0.85)


def test_after_a_move_that_overshot_the_next_ones_are_halved():
    """A load that falls in one high step between two prices: a slope alone would jump over the edge for ever."""
    correction, in_force = BiasCorrection(1, bias_gain=0.2, bias_jump=4.0, tilt_gain=0.5), np.array([0.9])

    def told(error: float, moved: float) -> float:
        correction.update(np.array([error]), np.zeros(1), np.array([moved]), requests=20_000)
        return float(correction.limit_move(np.array([9.0]), in_force)[0] - in_force[0])

    assert told(0.02, -0.6) == pytest.approx(8.1)  # as predicted
    assert told(0.3, -0.1) == pytest.approx(8.1)  # a small move cannot have done that
    assert told(-0.3, -0.6) == pytest.approx(8.1)  # it did too little
    assert told(0.3, -0.6) == pytest.approx(0.3)  # it did far too much
    assert correction.limit_move(np.array([-9.0]), in_force) == pytest.approx([0.6])
    assert correction.limit_move(np.array([0.8]), in_force) == pytest.approx([0.8])
    assert told(0.25, 0.05) == pytest.approx(0.36)  # the bound is lifted step by step
    assert told(-0.3, 0.36) == pytest.approx(0.18)
    for _ in range(14):
        free = told(0.0, 0.0)
    assert free == pytest.approx(8.1)
    told(0.3, -0.6)
    correction.lift_limit()
    assert np.all(np.isinf(correction.move_limit))
    correction = BiasCorrection(1, bias_gain=0.2, bias_jump=4.0, tilt_gain=0.0)
    assert told(0.3, -0.6) == pytest.approx(8.1)
