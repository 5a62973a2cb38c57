"""Traffic forecast: where the queries per second will be in the coming minutes, from telemetry alone.

The logarithm of the traffic, less a seasonal profile where past days are known, is followed by a local level and a
damped trend (Holt's method in its damped form). A step far outside the sampling noise of the counts is believed at
once, so that bursts are not smoothed away.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY


@dataclass(frozen=True)
class ForecastSettings:
    """How fast the forecaster follows."""

    level: float = 0.4
    """Share of a surprise that moves the level, in (0, 1]."""
    trend: float = 0.3
    """Share of the level's surprise that moves the trend, in [0, 1]."""
    damping: float = 0.93
    """Factor by which the trend fades each minute, in [0, 1]."""
    jump: float = 4.0
    """A surprise of this many standard deviations of the counts is mostly believed; infinity: never."""

    def __post_init__(self) -> None:
        if not (0 < self.level <= 1 and 0 <= self.trend <= 1 and 0 <= self.damping <= 1 and self.jump > 0):
            raise InputError(f"{self}: level must lie in (0, 1], trend and damping in [0, 1], and jump be positive")


class TrafficForecaster:
    """Forecasts QPS; feed it with :meth:`observe` once a control period.

    Args:
        settings: gains of the local trend.
        profile: (1440,) typical log QPS of each minute of the day, or ``None``; only its shape matters.
        period: seconds that a measured QPS averages over; sets the sampling noise. ``None``: 60 · ``step``.
        step: minutes from one reading to the next, and of a step of the forecast.
    """

    def __init__(
        self,
        settings: ForecastSettings | None = None,
        *,
        profile: np.ndarray | None = None,
        period: float | None = None,
        step: int = 1,
    ) -> None:
        self.settings = settings or ForecastSettings()
        self.profile = None if profile is None else np.asarray(profile, dtype=np.float64)
        if self.profile is not None and (
            self.profile.shape != (MINUTES_PER_DAY,) or not np.isfinite(self.profile).all()
        ):
            raise InputError(f"profile has shape {self.profile.shape}; give (1440,) finite logarithms of QPS")
        period = 60.0 * step if period is None else period
        if not (period > 0 and step >= 1):
            raise InputError(f"period is {period} s and step {step} minutes; both must be positive")
        self.period, self.step = period, step
        self.reset()

    def reset(self) -> None:
        """Forget the telemetry; the profile and the gains stay."""
        self._level, self._trend = math.nan, 0.0
        self._minute = 0

    def observe(self, minute: int, qps: float) -> None:
        """Take in the mean QPS of ``minute`` of the day. A value that is not finite counts as missing."""
        before = self._level + self._trend * self.settings.damping
        self._minute = int(minute)
        if not (math.isfinite(qps) and qps >= 0):
            self._level, self._trend = before, self._trend * self.settings.damping  # NaN before the first reading
            return
        value = self._log(qps) - self._season(self._minute)
        if math.isnan(self._level):
            self._level, self._trend = value, 0.0
            return
        surprise = value - before
        gain = self._gain(surprise, qps)
        self._level = before + gain * surprise
        self._trend = self._trend * self.settings.damping + self.settings.trend * gain * surprise

    def forecast(self, horizon: int) -> np.ndarray:
        """(horizon,) expected QPS of the minutes after the last one observed; always finite.

        Before any reading it is the profile, or zero where there is none.
        """
        steps = np.arange(1, horizon + 1)
        season = self._season((self._minute + self.step * steps) % MINUTES_PER_DAY)
        if math.isnan(self._level):
            return np.zeros(horizon) if self.profile is None else np.exp(season)
        fading = np.cumsum(self.settings.damping**steps)
        floor = self._log(0.0)
        # A doubling a minute for ten minutes is beyond any traffic; the bound keeps the exponential finite.
        growth = np.clip(self._trend * fading, -7.0, 7.0)
        return np.exp(np.clip(season + self._level + growth, floor, 40.0))

    def surprise(self, minute: int, qps: float) -> float:
        """log(measured/forecast) of a minute that is about to be observed."""
        return self._log(qps) - float(self._season(minute)) - self._level - self._trend * self.settings.damping

    def _gain(self, surprise: float, qps: float) -> float:
        noise = 1.0 / math.sqrt(max(qps, 1.0 / self.period) * self.period)  # of log counts, Poisson
        limit = self.settings.jump * noise
        return max(self.settings.level, 1.0 - (limit / surprise) ** 2) if abs(surprise) > limit else self.settings.level

    def _log(self, qps: float) -> float:
        return math.log(max(qps, 0.1 / self.period))  # less than one request is not seen

    def _season(self, minute: int | np.ndarray) -> Any:
        return 0.0 if self.profile is None else self.profile[minute]

    @classmethod
    def fit(
        cls,
        days: Sequence[np.ndarray] | np.ndarray,
        *,
        seasonal: bool | None = None,
        rates: bool | None = None,
        seed: int = 0,
        period: float = 60.0,
    ) -> TrafficForecaster:
        """Choose gains, and whether to use the profile of past days, by the one-minute error on those days.

        Args:
            days: (1440,) QPS of each minute, per past day.
            rates: the days are smooth mean rates, not measured counts: counts are drawn from them before the gains
                are chosen, which would otherwise trust every reading. ``None``: where they are smoother than counts
                can be.
            seed: of that draw.
            seasonal: use the profile; ``None``: where it forecasts days that it has not seen better.
            period: seconds that a QPS averages over.

        Raises:
            InputError: no day, a day of another length, or QPS that are negative or not finite.
        """
        table = np.asarray(days, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != MINUTES_PER_DAY or len(table) == 0:
            raise InputError(f"days has shape {table.shape}; give one row of 1440 QPS per past day")
        if not np.isfinite(table).all() or (table < 0).any():
            raise InputError("days holds QPS that are negative or not finite; remove or fill them")
        if _smoother_than_counts(table, period) if rates is None else rates:
            table = np.random.default_rng(seed).poisson(table * period) / period
        profile = daily_profile(table, period)
        choices = [False, True] if seasonal is None and len(table) > 1 else [bool(seasonal)]
        scored = []
        for use, (level, trend, damping) in itertools.product(choices, _GRID):
            settings = ForecastSettings(level=level, trend=trend, damping=damping)
            scored.append((_replay(settings, table, use, period), use, settings))
        _, use, settings = min(scored, key=lambda entry: entry[0])
        return cls(settings, profile=profile if use else None, period=period)

    def copy(self) -> TrafficForecaster:
        """A fresh forecaster with the same gains and profile."""
        return TrafficForecaster(replace(self.settings), profile=self.profile, period=self.period, step=self.step)


_GRID = tuple(itertools.product((0.3, 0.5, 1.0), (0.1, 0.3, 0.6), (0.6, 0.85, 0.95)))


def daily_profile(days: np.ndarray, period: float = 60.0, width: int = 11) -> np.ndarray:
    """Mean log QPS of each minute over days (D,1440), each day less its own mean, smoothed over ``width`` minutes.

    Returns:
        (1440,); the mean level of the days is added back.
    """
    logs = np.log(np.maximum(days, 0.1 / period))
    shape = (logs - logs.mean(axis=1, keepdims=True)).mean(axis=0) + logs.mean()
    kernel = np.ones(width) / width
    around = np.concatenate([shape[-(width // 2) :], shape, shape[: width // 2]])
    return np.convolve(around, kernel, mode="valid")


def _smoother_than_counts(days: np.ndarray, period: float) -> bool:
    """Whether days (D,1440) vary less from minute to minute than Poisson counts of their size would.

    The second difference of a smooth curve is nearly zero; that of independent counts n has the variance 6/n in logs.
    """
    counts = np.maximum(days * period, 1.0)
    bend = np.diff(np.log(counts), n=2, axis=1)
    return bool(np.median(bend**2 * counts[:, 1:-1] / 6) < 0.1)  # the median of χ² with one degree is 0.45


def _replay(settings: ForecastSettings, days: np.ndarray, seasonal: bool, period: float) -> float:
    """Mean squared log error one minute ahead, on each day with the profile of the others; at most two days."""
    errors = []
    for k in range(max(0, len(days) - 2), len(days)):
        others = np.delete(days, k, axis=0)
        profile = daily_profile(others, period) if seasonal else None
        forecaster = TrafficForecaster(settings, profile=profile, period=period)
        for minute, qps in enumerate(days[k].tolist()):
            if minute > 0:
                errors.append(forecaster.surprise(minute, qps))
            forecaster.observe(minute, qps)
    return float(np.mean(np.square(errors)))
