"""Traffic in requests per second, minute by minute, from a trace file or a seeded generator."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marca_env.scenario.scenario import Scenario
from marca_env.traffic.minutes import MinuteSeries, show, without_outliers
from marca_env.traffic.shipped_traces import trace_file
from marca_env.traffic.stamps import MINUTE, LocalClock
from marca_env.traffic.time_series import TraceOptions, read_series
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.units import MINUTES_PER_DAY

log = logging.getLogger(__name__)
HISTORY_DAYS = 14
"""Most days before the start that are kept as history."""
MOST_MINUTES = 366 * MINUTES_PER_DAY
"""Most minutes of a replay."""


@dataclass(frozen=True)
class Traffic:
    """Mean arrival rate of each minute, and of the minutes before the first, from which forecasts learn."""

    name: str
    """Name for tables."""
    qps: np.ndarray
    """Requests per second, float64 (minutes,)."""
    first_minute: int = 0
    """Minute of the day of ``qps[0]``, 0 … 1439."""
    history: np.ndarray | None = None
    """Requests per second of the minutes just before, oldest first; same scale."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the trace: gaps and absurd samples."""

    def __len__(self) -> int:
        return len(self.qps)

    def minute_of_day(self, k: int) -> int:
        """Return the minute of the day of minute ``k``; negative ones are of the history."""
        return (self.first_minute + k) % MINUTES_PER_DAY

    def history_days(self) -> np.ndarray:
        """Return the complete days before the first minute, requests per second from midnight on, (days,1440)."""
        n_days = 0 if self.history is None else len(self.history) // MINUTES_PER_DAY
        if self.history is None or n_days == 0:
            return np.empty((0, MINUTES_PER_DAY))
        days = self.history[-n_days * MINUTES_PER_DAY :].reshape(n_days, MINUTES_PER_DAY)
        return np.roll(days, self.first_minute, axis=1)

    def clipped(self, minutes: int) -> Traffic:
        """Return the first ``minutes`` minutes."""
        return replace(self, qps=self.qps[:minutes])


@checked_arguments
def read_trace(
    path: str | Path,
    scenario: Scenario | str | Path = "default",
    minutes: int = MINUTES_PER_DAY,
    start: str | None = None,
    options: TraceOptions | None = None,
    **changes: Any,
) -> Traffic:
    """Read a trace of a column of dates and one of values as traffic for ``scenario``.

    The file is text of any layout or Parquet (:mod:`marca_env.traffic.time_series`). Samples within a minute are
    averaged, longer intervals are interpolated linearly, and the last sample counts for its whole interval. Values are
    scaled so that the largest of the replayed window is ``scenario.peak_qps``. Gaps and absurd samples are in
    ``Traffic.notes`` and logged as warnings.

    Args:
        path: the file, or the name of a trace that comes with the package, such as ``ingress-01``.
        scenario: a scenario or the name of a preset.
        minutes: length of the window.
        start: first minute of the window, as a date or a date and time of the local clock. The default is the first
            midnight with a week of history before it. In a shorter trace it is the first midnight, or stamp, that
            leaves room for the window.
        options: columns, time zone, gaps and outliers.
        changes: single fields of the options instead, such as ``timezone="Europe/Berlin"``.

    Raises:
        InputError: no such file, a missing column, unsorted or repeated stamps, a value that is not a number, negative
            or too large, or a window that the trace does not cover. The message names file, line and column.
    """
    scenario = Scenario.load(scenario)
    path = trace_file(path)
    options = trace_options(options, **changes)
    if not 1 <= minutes <= MOST_MINUTES:
        raise InputError(f"minutes is {minutes}; use at least 1 and at most {MOST_MINUTES}, a year")
    series, notes = without_outliers(read_series(path, options), options.outliers)
    by_minute, clock = MinuteSeries(series, options.fill), series.clock
    begin = int(_begin(path, by_minute, clock, minutes, start))
    local_begin = int(clock.to_local(np.array([begin]))[0])
    before = clock.to_utc(local_begin + MINUTE * np.arange(-HISTORY_DAYS * MINUTES_PER_DAY, 0))
    before = before[before >= by_minute.first]
    notes += _gap_notes(path, by_minute, clock, int(before[0]) if len(before) else begin, begin + minutes * MINUTE)
    qps = by_minute.at(begin + MINUTE * np.arange(minutes))
    peak = qps.max()
    if peak <= 0:
        raise InputError(f"{path}: every value from {show(local_begin)} on is zero; use another --start")
    for note in notes:
        _warn(note)
    scale = scenario.peak_qps / peak
    first_minute = local_begin // MINUTE % MINUTES_PER_DAY
    return Traffic(path.name.split(".")[0], qps * scale, first_minute, by_minute.at(before) * scale, tuple(notes))


@functools.cache
def _warn(note: str) -> None:
    """Log a note of a trace once, although commands read their trace for every seed."""
    log.warning("%s", note)


def trace_options(options: TraceOptions | None = None, **changes: Any) -> TraceOptions:
    """Return the options with some fields changed.

    Raises:
        InputError: an unknown field or an invalid value.
    """
    valid = [field.name for field in fields(TraceOptions)]
    for name in changes:
        if name not in valid:
            raise InputError(unknown_option("option of a trace", name, valid))
    return replace(options or TraceOptions(), **changes)


def _gap_notes(path: Path, by_minute: MinuteSeries, clock: LocalClock, begin: int, end: int) -> list[str]:
    """Return what to say of the gaps in a span of time.

    Raises:
        InputError: there is one, and it must not be filled.
    """
    gaps = by_minute.gaps.within(begin, end)
    if len(gaps) == 0:
        return []
    found = f"{path}: {gaps.describe(clock.to_local)}"
    if by_minute.fill == "error":
        raise InputError(f"{found}; use another --start, or --fill interpolate, previous or zero")
    return [f"{found}; filled by --fill {by_minute.fill}"]


def _begin(path: Path, by_minute: MinuteSeries, clock: LocalClock, minutes: int, start: str | None) -> int:
    """Return the first instant of the window."""
    latest = by_minute.end - minutes * MINUTE
    if latest < by_minute.first:
        raise InputError(
            f"{path}: covers {len(by_minute)} minutes, fewer than the {minutes} of --minutes; use a lower --minutes"
        )
    first, last = (pd.Timestamp(int(t), unit="us") for t in clock.to_local(np.array([by_minute.first, latest])))
    if start is None:
        midnights = (_instant(clock, t.ceil("D")) for t in (first + pd.Timedelta(days=7), first))
        return next((max(t, by_minute.first) for t in midnights if t <= latest), by_minute.first)
    local = _parsed_start(start)
    begin = max(_instant(clock, local.floor("min")), by_minute.first)
    if not (first <= local and begin <= latest):
        raise InputError(f"{path}: --start {start} with {minutes} minutes does not fit; use a time in {first} … {last}")
    return begin


def _parsed_start(start: str) -> pd.Timestamp:
    """Return ``--start`` as a time of the local clock."""
    try:
        local = pd.Timestamp(start)
        if pd.isna(local):
            raise ValueError
        local = local.tz_localize(None) if local.tzinfo is not None else local
        return pd.Timestamp(np.datetime64(local, "us"))
    except (ValueError, TypeError, OverflowError):
        raise InputError(
            f"--start {str(start)[:60]!r} is not a date; use a form such as 2014-07-08 or 2014-07-08T06:00"
        ) from None


def _instant(clock: LocalClock, local: pd.Timestamp) -> int:
    return int(clock.to_utc(np.array([np.datetime64(local, "us").astype(np.int64)]))[0])


def daily_traffic(
    scenario: Scenario | str,
    rng: np.random.Generator,
    minutes: int = MINUTES_PER_DAY,
    *,
    roughness: float = 0.03,
) -> Traffic:
    """Generate a day with a morning and an evening peak and a slow autoregressive noise.

    The largest minute has ``scenario.peak_qps`` requests per second. A scenario that defines its traffic gives that
    instead, from a random minute on; it is a minute of the day if the traffic consists of complete days.

    Args:
        scenario: a scenario or the name of a preset.
        rng: source of the draws.
        minutes: length of the day.
        roughness: relative size of the noise.

    Raises:
        InputError: less than one minute.
    """
    scenario = Scenario.load(scenario)
    if minutes < 1:
        raise InputError(f"minutes is {minutes}; use at least 1")
    if scenario.traffic:
        start = int(rng.integers(len(scenario.traffic)))
        qps = np.take(scenario.traffic, np.arange(start, start + minutes), mode="wrap")
        complete_days = len(scenario.traffic) % MINUTES_PER_DAY == 0
        return Traffic("generated", qps * scenario.peak_qps, start % MINUTES_PER_DAY if complete_days else 0)
    hour = np.arange(minutes) / 60.0
    evening, morning = rng.uniform(19, 21), rng.uniform(9, 12)
    shape = 0.12 + bump(hour, evening, rng.uniform(2.5, 4)) + rng.uniform(0.5, 0.8) * bump(hour, morning, 3.0)
    noise = np.empty(minutes)
    level, memory = 0.0, 0.97
    shocks = rng.standard_normal(minutes) * roughness * np.sqrt(1 - memory**2)
    for k in range(minutes):
        level = memory * level + shocks[k]
        noise[k] = level
    qps = shape * np.exp(noise)
    return Traffic("generated", qps * scenario.peak_qps / qps.max())


def bump(hour: np.ndarray, centre: float, width: float) -> np.ndarray:
    """Return a bell curve of height 1 around the hour ``centre`` of the day, of standard deviation ``width`` hours."""
    distance = (hour - centre + 12) % 24 - 12
    return np.exp(-0.5 * (distance / width) ** 2)
