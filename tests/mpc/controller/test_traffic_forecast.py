"""The traffic forecaster."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marca_env.utils.errors import InputError
from mpc.controller.traffic_forecast import ForecastSettings, TrafficForecaster, daily_profile
from tests.helpers.paths import TRACES
from tests.helpers.small_system import sine_days


def feed(forecaster, series, first=0):
    for k, qps in enumerate(series):
        forecaster.observe((first + k) % 1440, qps)
    return forecaster


def test_constant_traffic_is_forecast_exactly():
    assert feed(TrafficForecaster(), [80.0] * 30).forecast(10) == pytest.approx(np.full(10, 80.0))


def test_damped_trend_matches_a_hand_computed_case():
    forecaster = feed(TrafficForecaster(ForecastSettings(level=1.0, trend=1.0, damping=0.5)), [100.0, 110.0])
    growth = np.log(1.1)
    expected = 110 * np.exp(growth * np.array([0.5, 0.5 + 0.25, 0.5 + 0.25 + 0.125]))
    assert forecaster.forecast(3) == pytest.approx(expected)


def test_a_burst_is_followed_and_noise_is_smoothed():
    gains = ForecastSettings(level=0.3, trend=0.0, jump=4.0)
    noise = 100 * (1 + 2 / np.sqrt(100 * 60))  # two standard deviations of the count
    calm = feed(TrafficForecaster(gains), [100.0] * 20 + [noise]).forecast(1)[0]
    assert calm == pytest.approx(100 * (noise / 100) ** 0.3)
    assert feed(TrafficForecaster(gains), [100.0] * 20 + [200.0]).forecast(1)[0] > 190


def test_the_profile_sets_the_shape_and_telemetry_the_level():
    profile = np.log(100 + 50 * np.sin(2 * np.pi * np.arange(1440) / 1440))
    forecaster = feed(TrafficForecaster(profile=profile), 2 * np.exp(profile[1420:1440]), first=1420)
    assert forecaster.forecast(60) == pytest.approx(2 * np.exp(profile[:60]))  # across midnight


def test_profile_of_identical_days_is_the_smoothed_day():
    day = sine_days(1)[0]
    profile = daily_profile(np.stack([day, day]))
    assert np.abs(profile - np.log(day))[10:-10].max() < 0.02  # the day does not end where it began
    assert daily_profile(np.full((3, 1440), 7.0)) == pytest.approx(np.full(1440, np.log(7.0)))


def test_the_profile_of_days_with_a_quiet_night_keeps_its_edges():
    """Five minutes before the night the profile is still that of a busy minute, and after it at once again."""
    days = np.full((3, 1440), 500.0) * np.array([[0.8], [1.0], [1.2]])
    for level in (0.0, 0.02):  # no request, or one a minute
        days[:, :360] = level
        profile = daily_profile(days)
        assert profile[[0, 5, 354, 359]] == pytest.approx(np.log(max(level, 0.1 / 60)))
        assert np.exp(profile[[360, 365, 1000, 1435, 1439]]) == pytest.approx(500.0, rel=0.03)
        forecaster = TrafficForecaster(profile=profile)
        forecaster.observe(357, level)
        assert forecaster.forecast(3)[:2].max() < 0.1
        forecaster.observe(358, level)
        forecaster.observe(359, level)
        assert forecaster.forecast(3) == pytest.approx([490.0] * 3, rel=0.2)


def test_the_profile_of_days_that_never_stop_is_the_smoothed_mean():
    days = np.random.default_rng(0).uniform(1.0, 500.0, (3, 1440))
    logs = np.log(days)
    mean = (logs - logs.mean(1, keepdims=True)).mean(0) + logs.mean()
    assert daily_profile(days)[700] == pytest.approx(mean[695:706].mean())


def test_before_any_measurement_the_forecast_is_the_profile_or_zero():
    assert TrafficForecaster().forecast(3).tolist() == [0, 0, 0]
    assert TrafficForecaster(profile=np.full(1440, np.log(50.0))).forecast(2) == pytest.approx([50, 50])
    assert feed(TrafficForecaster(), [np.nan, np.nan]).forecast(2).tolist() == [0, 0]
    assert feed(TrafficForecaster(), [np.nan, 30.0]).forecast(2) == pytest.approx([30, 30])


@pytest.mark.parametrize("low", [0.0, 0.01])
def test_traffic_that_stops_and_begins_again_is_no_trend(low):
    """The first busy minute after hours without traffic is forecast to last, not to grow a thousandfold."""
    stopped = feed(TrafficForecaster(), [300.0] * 30 + [low])
    assert stopped.forecast(10) == pytest.approx(np.full(10, max(low, 0.1 / 60)))
    again = feed(stopped, [low] * 300 + [300.0])
    assert again.forecast(10) == pytest.approx(np.full(10, 300.0))


def test_quiet_hours_of_the_past_days_are_forecast():
    day = np.full(1440, 300.0)
    day[60:420] = 0.0
    forecaster = TrafficForecaster.fit(np.stack([day] * 3), rates=True)
    feed(forecaster, [*day[:415].tolist()])
    ahead = forecaster.forecast(20)  # 6:55 to 7:14
    assert ahead[0] < 1
    assert ahead[-1] == pytest.approx(300.0, rel=0.1)


def test_a_missing_measurement_follows_the_trend_and_reset_forgets():
    forecaster = feed(TrafficForecaster(ForecastSettings(level=1, trend=1, damping=1.0)), [100.0, 110.0, np.nan])
    assert forecaster.forecast(1)[0] == pytest.approx(100 * 1.1**3)
    forecaster.reset()
    assert forecaster.forecast(1).tolist() == [0]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30), st.integers(1, 20))
def test_forecasts_are_finite_and_never_negative(readings, horizon):
    forecast = feed(TrafficForecaster(ForecastSettings(trend=0.6, damping=1.0)), readings).forecast(horizon)
    assert forecast.shape == (horizon,)
    assert np.all(np.isfinite(forecast))
    assert np.all(forecast >= 0)


@pytest.mark.slow
def test_smooth_rates_are_distinguished_from_measured_counts():
    smooth = sine_days(2, seed=1)
    counts = np.random.default_rng(0).poisson(smooth * 60) / 60
    on_rates = TrafficForecaster.fit(smooth, rates=False, seasonal=False)
    on_counts = TrafficForecaster.fit(smooth, seasonal=False)
    assert on_counts.settings == TrafficForecaster.fit(smooth, rates=True, seasonal=False).settings
    assert on_counts.settings.level < on_rates.settings.level
    assert (
        TrafficForecaster.fit(counts, seasonal=False).settings
        == TrafficForecaster.fit(counts, rates=False, seasonal=False).settings
    )
    assert on_counts.copy().settings == on_counts.settings


def error(forecaster, day, horizon):
    forecaster.reset()
    errors = []
    for minute in range(len(day) - horizon):
        forecaster.observe(minute, day[minute])
        if minute >= 30:
            errors.append(forecaster.forecast(horizon)[-1] / day[minute + horizon] - 1)
    return np.sqrt(np.mean(np.square(errors)))


def persistence(day, horizon):
    return np.sqrt(np.mean((day[30:-horizon] / day[30 + horizon :] - 1) ** 2))


def test_the_forecast_beats_persistence_on_new_days():
    rng = np.random.default_rng(0)
    days = rng.poisson(sine_days(4, seed=2) * 60) / 60
    forecaster = TrafficForecaster.fit(days[:3])
    assert error(forecaster, days[3], 1) < 0.9 * persistence(days[3], 1)
    assert error(forecaster, days[3], 10) < 0.7 * persistence(days[3], 10)


@pytest.mark.skipif(not (TRACES / "nyc_taxi.csv").is_file(), reason="the public traces are not beside this checkout")
def test_the_forecast_beats_persistence_on_taxi_rides():
    rides = pd.read_csv(TRACES / "nyc_taxi.csv")["value"].to_numpy(dtype=float)[: 48 * 12 + 1]
    rates = np.interp(np.arange(12 * 1440), 30 * np.arange(len(rides)), rides).reshape(12, 1440)
    days = np.random.default_rng(0).poisson(rates / rates.max() * 400 * 60) / 60
    forecaster = TrafficForecaster.fit(days[5:10])
    assert error(forecaster, days[11], 1) < 0.9 * persistence(days[11], 1)
    assert error(forecaster, days[11], 10) < 0.8 * persistence(days[11], 10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ForecastSettings(level=0.0),
        lambda: ForecastSettings(damping=1.5),
        lambda: TrafficForecaster(profile=np.zeros(24)),
        lambda: TrafficForecaster(period=0),
        lambda: TrafficForecaster.fit(np.zeros((2, 100))),
        lambda: TrafficForecaster.fit(np.full((2, 1440), np.nan)),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InputError):
        make()
