"""The calibration: its grid search, and that it uses another sample than the test requests."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.days.balancer_evaluation import JUDGE_SEED
from benchmarks.days.calibration import Calibration, gain_grid, two_passes
from marca_env.models.engine import Engine
from marca_env.traffic.days import generated
from mpc import StaticBalancer


def test_two_passes_compare_gains_at_the_middle_margin_then_margins() -> None:
    tried: list[tuple[float, ...]] = []

    def best(candidates: list[tuple[float, ...]]) -> tuple[float, ...]:
        tried.extend(candidates)
        return max(candidates, key=lambda c: (c[0] == 2.0, c[-1]))

    assert two_passes(best, [(p, m) for p in (1.0, 2.0) for m in (0.0, 0.1, 0.2)]) == (2.0, 0.2)
    assert tried == [(1.0, 0.1), (2.0, 0.1), (2.0, 0.0), (2.0, 0.1), (2.0, 0.2)]
    assert two_passes(best, [(0.3,), (0.1,)]) == (0.3,)


def test_the_candidate_that_earns_most_wins(exact_engine: Engine) -> None:
    calibration = Calibration(exact_engine, requests=40, tuning=5)
    closed = np.full(2, 1e6)  # at this price only the cheapest actions are left
    assert calibration.best([closed, np.zeros(2)], StaticBalancer) is not closed


def test_the_sample_differs_from_the_test_requests(exact_engine: Engine) -> None:
    calibration = Calibration(exact_engine, requests=40)
    test_pool = exact_engine.pool(40, seed=JUDGE_SEED)
    assert calibration.pool.weights is not None
    assert calibration.pool.weights.sum() == 40
    assert not np.array_equal(calibration.pool.states, test_pool.states)


def test_a_policy_is_calibrated_on_the_values_that_it_expects(exact_engine: Engine) -> None:
    scenario = exact_engine.scenario.replace(peak_qps=110.0)  # the budgets bind
    engine = Engine(scenario, exact_engine.cost_model, exact_engine.revenue_model, exact_engine.population)
    calibration = Calibration(engine, requests=40, tuning=5)
    doubled = calibration.with_values(lambda states: 2 * engine.table(states)[0])
    assert doubled.pool.outcomes["revenue"] == pytest.approx(2 * calibration.pool.outcomes["revenue"])
    assert doubled.usual_prices == pytest.approx(2 * calibration.usual_prices, rel=0.05)
    assert calibration.usual_prices.max() > 1e-3


def test_the_grid_has_every_margin_with_every_gain() -> None:
    assert len(set(gain_grid((0.0, 0.1)))) == len(gain_grid((0.0, 0.1))) == 12


def test_an_announced_sale_is_forecast(exact_engine: Engine) -> None:
    calibration = Calibration(exact_engine, requests=40)
    day = generated("flash-sale", calibration.scenario, 2)
    assert day.announced is not None
    start = int(np.argmax(day.announced > 0))
    forecasts = []
    for announced in (None, day.announced):
        forecaster = calibration.forecaster(day.traffic.history_days(), announced)
        for minute in range(start - 30, start):
            forecaster.observe(minute, day.traffic.qps[minute])
        forecasts.append(forecaster.forecast(1)[0])
    assert forecasts[1] / day.traffic.qps[start] == pytest.approx(1.0, abs=0.25)
    assert forecasts[0] < 0.3 * day.traffic.qps[start]


def test_long_parts_show_their_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """Minutes of silence otherwise: the tuning, the telemetry and the fit are the longest parts of the commands."""
    engine = Engine.load("stages-3-v0")
    calibration = Calibration(engine, requests=20, tuning=3, days=1, epochs=2, progress=True)
    _ = calibration.feedback, calibration.margin
    shown = capsys.readouterr().err
    for line in ("Tuning feedback: 12 of 12", "Simulating telemetry, days: 1 of 1", "Tuning the margin of MPC: 4 of 4"):
        assert line in shown
    assert "Fitting the system model, epochs: 1 of 2" in shown
    _ = Calibration(engine, requests=20, tuning=3).rate
    assert capsys.readouterr().err == ""
