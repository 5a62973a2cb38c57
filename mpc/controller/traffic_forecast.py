"""Forecast of the traffic, queries per second (QPS), of the coming minutes from telemetry alone.

The logarithm of the QPS, less a daily profile if past days are known, is tracked by a local level and a damped trend
(Holt's method in its damped form). A step far outside the sampling noise of the counts is followed at once, so that
bursts are not smoothed away.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from marca_env.utils.argument_types import checked_arguments, checked_fields
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY
from marca_env.utils.validation import as_real_array
from mpc.balancers.saved_state import to_count, to_number
from mpc.validation import (
    FINITE_POSITIVE,
    FRACTION,
    FRACTION_ABOVE_ZERO,
    POSITIVE_OR_INFINITE,
    at_least,
    check_fields,
    check_values,
)

BUSY_REQUESTS = 30.0
"""Requests in a period from which traffic counts as busy."""


@dataclass(frozen=True)
@checked_fields
class ForecastSettings:
    """Gains of the forecaster. A surprise is the log of measured over forecast QPS."""

    level: float = 0.4
    """Share of a surprise that is added to the level, in (0, 1]."""
    trend: float = 0.3
    """Share of the level's change that is added to the trend, in [0, 1]."""
    damping: float = 0.93
    """Factor by which the trend shrinks each minute, in [0, 1]."""
    jump: float = 4.0
    """A surprise of this many standard deviations of the counts is mostly added to the level; infinity: never."""

    def __post_init__(self) -> None:
        rules = {"level": FRACTION_ABOVE_ZERO, "trend": FRACTION, "damping": FRACTION, "jump": POSITIVE_OR_INFINITE}
        check_fields(self, rules, prefix="forecast: ")


class TrafficForecaster:
    """Forecasts QPS; call :meth:`observe` once in each control period.

    Args:
        settings: gains of the level and the trend.
        profile: (1440,) typical log QPS of each minute of the day, or ``None``; only its shape matters.
        period: seconds over which a measured QPS is averaged; it sets the sampling noise. ``None``: 60 · ``step``.
        step: minutes from one measurement to the next, and in one step of the forecast.

    Raises:
        InputError: a profile of another shape or with values that are not finite, or a period that is not positive.
    """

    @checked_arguments
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
            raise InputError(f"profile has shape {self.profile.shape}; pass (1440,) finite logarithms of QPS")
        period = 60.0 * step if period is None else period
        check_values(
            {"period": period, "step": step}, {"period": FINITE_POSITIVE, "step": at_least(1)}, prefix="forecast: "
        )
        self.period, self.step = period, step
        self.reset()

    def reset(self) -> None:
        """Forget the telemetry; the profile and the gains stay."""
        self._level, self._trend = math.nan, 0.0
        self._minute = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned from the telemetry, as values of JSON; the profile and the gains are not in it."""
        return {"level": None if math.isnan(self._level) else self._level, "trend": self._trend, "minute": self._minute}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InputError: a damaged state.
        """
        level, trend = to_number(state, "level", math.nan), to_number(state, "trend")
        self._level, self._trend, self._minute = level, trend, to_count(state, "minute") % MINUTES_PER_DAY

    def observe(self, minute: int, qps: float) -> None:
        """Update the forecast by the mean QPS of ``minute`` of the day; a value that is not finite is missing."""
        before = self._level + self._trend * self.settings.damping
        self._minute = int(minute)
        if not (math.isfinite(qps) and qps >= 0):
            self._level, self._trend = before, self._trend * self.settings.damping  # NaN before the first measurement
            return
        value = self._log(qps) - self._season(self._minute)
        if math.isnan(self._level) or self._is_quiet(before, qps):
            self._level, self._trend = value, 0.0
            return
        surprise = value - before
        gain = self._gain(surprise, qps)
        self._level = before + gain * surprise
        self._trend = self._trend * self.settings.damping + self.settings.trend * gain * surprise

    def forecast(self, horizon: int) -> np.ndarray:
        """Return the expected QPS (horizon,) of the periods after the last one observed; always finite.

        Before the first measurement it is the profile, or zero without a profile.
        """
        steps = np.arange(1, horizon + 1)
        season = self._season((self._minute + self.step * steps) % MINUTES_PER_DAY)
        if math.isnan(self._level):
            return np.zeros(horizon) if self.profile is None else np.exp(season)
        fading = np.cumsum(self.settings.damping**steps)
        floor = self._log(0.0)
        # Traffic never doubles each minute for ten minutes; the bound keeps the exponential finite.
        growth = np.clip(self._trend * fading, -7.0, 7.0)
        return np.exp(np.clip(season + self._level + growth, floor, 40.0))

    def surprise(self, minute: int, qps: float) -> float:
        """Return log(measured/forecast) of a minute that is about to be observed."""
        return self._log(qps) - float(self._season(minute)) - self._level - self._trend * self.settings.damping

    def _is_quiet(self, before: float, qps: float) -> bool:
        """Return whether traffic stops or begins again in this minute: its step is then no trend."""
        expected = math.exp(min(before + float(self._season(self._minute)), 40.0)) * self.period
        measured = qps * self.period
        return min(expected, measured) < _QUIET and max(expected, measured) > BUSY_REQUESTS

    def _gain(self, surprise: float, qps: float) -> float:
        noise = 1.0 / math.sqrt(max(qps, 1.0 / self.period) * self.period)  # standard deviation of log counts, Poisson
        limit = self.settings.jump * noise
        return max(self.settings.level, 1.0 - (limit / surprise) ** 2) if abs(surprise) > limit else self.settings.level

    def _log(self, qps: float) -> float:
        return math.log(max(qps, 0.1 / self.period))  # a QPS of zero counts as 0.1 requests in the period

    def _season(self, minute: int | np.ndarray) -> Any:
        return 0.0 if self.profile is None else self.profile[minute]

    @classmethod
    @checked_arguments
    def fit(
        cls,
        days: Sequence[np.ndarray] | np.ndarray,
        *,
        seasonal: bool | None = None,
        rates: bool | None = None,
        seed: int = 0,
        period: float = 60.0,
    ) -> TrafficForecaster:
        """Choose the gains, and whether to use the profile of past days, by the one-minute error on those days.

        Args:
            days: (1440,) QPS of each minute, per past day.
            seasonal: whether to use the profile; ``None``: if it improves the forecast of days it was not made from.
            rates: whether the days are smooth mean rates instead of measured counts. Then counts are drawn from them
                first; otherwise the chosen gains would follow every measurement. ``None``: if the days are smoother
                than counts can be.
            seed: seed of these draws.
            period: seconds over which a QPS is averaged.

        Raises:
            InputError: no day, a day of another length, or QPS that are negative or not finite.
        """
        table = as_real_array("days", days, "pass one row of 1440 QPS per past day")
        if table.ndim != 2 or table.shape[1] != MINUTES_PER_DAY or len(table) == 0:
            raise InputError(f"days has shape {table.shape}; pass one row of 1440 QPS per past day")
        if not np.isfinite(table).all() or (table < 0).any():
            raise InputError("days holds QPS that are negative or not finite; remove or fill them")
        if _smoother_than_counts(table, period) if rates is None else rates:
            table = np.random.default_rng(seed).poisson(table * period) / period
        profile = daily_profile(table, period)
        choices = [False, True] if seasonal is None and len(table) > 1 else [bool(seasonal)]
        scored = []
        for use_profile, (level, trend, damping) in itertools.product(choices, _GAINS):
            settings = ForecastSettings(level=level, trend=trend, damping=damping)
            scored.append((_one_minute_error(settings, table, use_profile, period), use_profile, settings))
        _, use_profile, settings = min(scored, key=lambda entry: entry[0])
        return cls(settings, profile=profile if use_profile else None, period=period)

    def copy(self) -> TrafficForecaster:
        """Return a new forecaster with the same gains and profile."""
        return TrafficForecaster(replace(self.settings), profile=self.profile, period=self.period, step=self.step)


_QUIET = 3.0  # requests in a period: from fewer than this to more than BUSY_REQUESTS is no trend
_GAINS = tuple(itertools.product((0.3, 0.5, 1.0), (0.1, 0.3, 0.6), (0.6, 0.85, 0.95)))


def daily_profile(days: np.ndarray, period: float = 60.0, width: int = 11) -> np.ndarray:
    """Return the typical log QPS (1440,) of each minute: the mean over days, smoothed.

    The mean of each day is subtracted first, and the mean over all days is added at the end. Where traffic stops or
    begins at once, quiet and busy minutes are smoothed apart: the mean of both logarithms is neither, and a plan that
    believes it makes computation free before a quiet night.

    Args:
        days: (D,1440) QPS of each minute.
        period: seconds over which a QPS is averaged.
        width: minutes over which the profile is smoothed.
    """
    logs = np.log(np.maximum(days, 0.1 / period))
    typical = np.median(days * period, axis=0)
    is_busy = typical > BUSY_REQUESTS
    starts_or_stops = (typical < _QUIET) & (np.roll(is_busy, 1) | np.roll(is_busy, -1))
    if starts_or_stops.any():
        return _split_profile(logs, is_busy, width)
    shape = (logs - logs.mean(axis=1, keepdims=True)).mean(axis=0) + logs.mean()
    kernel = np.ones(width) / width
    return np.convolve(_wrapped(shape, width), kernel, mode="valid")


def _split_profile(logs: np.ndarray, is_busy: np.ndarray, width: int) -> np.ndarray:
    """Return the profile (1440,) of days with a quiet part: each part has its own means and is smoothed alone.

    Args:
        logs: (D,1440) log QPS.
        is_busy: (1440,) minutes that have traffic on most days.
        width: minutes over which the profile is smoothed.
    """
    profile = np.empty(len(is_busy))
    for part in (is_busy, ~is_busy):
        of_days = logs[:, part].mean(axis=1, keepdims=True)
        shape = np.where(part, (logs - of_days).mean(axis=0) + logs[:, part].mean(), 0.0)
        sums, counts = (np.convolve(_wrapped(x, width), np.ones(width), mode="valid") for x in (shape, part * 1.0))
        profile[part] = sums[part] / np.maximum(counts[part], 1.0)
    return profile


def _wrapped(values: np.ndarray, width: int) -> np.ndarray:
    """Return the minutes of a day with half a ``width`` of the days before and after."""
    return np.concatenate([values[-(width // 2) :], values, values[: width // 2]])


def _smoother_than_counts(days: np.ndarray, period: float) -> bool:
    """Return whether days (D,1440) vary less from minute to minute than Poisson counts of their size.

    The second difference of a smooth curve is nearly zero; that of independent counts n has the variance 6/n in logs.
    """
    counts = np.maximum(days * period, 1.0)
    second_difference = np.diff(np.log(counts), n=2, axis=1)
    return bool(np.median(second_difference**2 * counts[:, 1:-1] / 6) < 0.1)  # the median of χ² with one degree is 0.45


def _one_minute_error(settings: ForecastSettings, days: np.ndarray, seasonal: bool, period: float) -> float:
    """Return the mean squared log error one minute ahead on the last two days, each with the profile of the others."""
    errors = []
    for k in range(max(0, len(days) - 2), len(days)):
        other_days = np.delete(days, k, axis=0)
        profile = daily_profile(other_days, period) if seasonal else None
        forecaster = TrafficForecaster(settings, profile=profile, period=period)
        for minute, qps in enumerate(days[k].tolist()):
            if minute > 0:
                errors.append(forecaster.surprise(minute, qps))
            forecaster.observe(minute, qps)
    return float(np.mean(np.square(errors)))
