"""Traffic in requests per second, minute by minute, from a trace file or a seeded generator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.units import MINUTES_PER_DAY

HISTORY_DAYS = 14
"""Most days before the start that are kept as history."""


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


def read_trace(
    path: str | Path, scenario: Scenario | str = "default", minutes: int = MINUTES_PER_DAY, start: str | None = None
) -> Traffic:
    """Read a CSV trace with columns ``timestamp,value`` as traffic for ``scenario``.

    Values are interpolated linearly to minutes and scaled so that the largest of the replayed window is
    ``scenario.peak_qps``.

    Args:
        path: the file.
        scenario: a scenario or the name of a preset.
        minutes: length of the window.
        start: first minute of the window, as a date or a date and time. The default is the first midnight with a week
            of history before it. In a shorter trace it is the first midnight, or stamp, that leaves room for the
            window.

    Raises:
        InputError: no such file, a missing column, unsorted or repeated stamps, a value that is not a number or
            negative, a window that the trace does not cover. The message names the file and the line.
    """
    scenario = Scenario.load(scenario)
    path = Path(path)
    if minutes < 1:
        raise InputError(f"minutes is {minutes}; use at least 1")
    series = _read(path)
    first, last = series.index[0].ceil("min"), series.index[-1].floor("min")
    begin = _begin(path, first, last, minutes, start)
    grid = pd.date_range(first, begin + pd.Timedelta(minutes=minutes - 1), freq="min")
    clock = (series.index - first) / pd.Timedelta(minutes=1)
    values = np.interp((grid - first) / pd.Timedelta(minutes=1), clock, series.to_numpy())
    split = len(grid) - minutes
    peak = values[split:].max()
    if peak <= 0:
        raise InputError(f"{path}: every value from {begin} on is zero; use another --start")
    qps = values * scenario.peak_qps / peak
    history = qps[max(0, split - HISTORY_DAYS * MINUTES_PER_DAY) : split]
    return Traffic(path.stem, qps[split:], begin.hour * 60 + begin.minute, history)


def _read(path: Path) -> pd.Series:
    if not path.is_file():
        raise InputError(f"{path}: no such trace file")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        if not isinstance(frame.index, pd.RangeIndex):  # pandas makes an index of the extra fields
            raise InputError(f"{path}: its rows have more fields than its header; keep only timestamp,value")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable CSV file: {one_line(error)}") from None
    for column in ("timestamp", "value"):
        if column not in frame.columns:
            raise InputError(f"{path}: column {column!r} is missing (found: {', '.join(frame.columns)})")
    if len(frame) < 2:
        raise InputError(f"{path}: {len(frame)} rows; a trace needs at least two")
    stamps = _stamps(path, frame["timestamp"])
    values = pd.to_numeric(frame["value"], errors="coerce").to_numpy(dtype=np.float64)
    step = stamps.diff().dt.total_seconds()
    _refuse(path, frame, "timestamp", stamps.isna(), "is not a date and time")
    _refuse(path, frame, "timestamp", step == 0, "repeats the stamp before; keep one row per stamp")
    _refuse(path, frame, "timestamp", step < 0, "is earlier than the row before; sort the file by timestamp")
    _refuse(path, frame, "value", ~np.isfinite(values), "is not a finite number; fill or drop the row")
    _refuse(path, frame, "value", values < 0, "is negative; traffic must be zero or more")
    return pd.Series(values, index=pd.DatetimeIndex(stamps))


def _stamps(path: Path, column: pd.Series) -> pd.Series:
    """Return the local date and time of each row, without a time zone."""
    try:
        stamps = pd.to_datetime(column, errors="coerce", format="ISO8601")
    except ValueError:
        raise InputError(f"{path}: timestamps with different time zones; use one time zone for all") from None
    return stamps if stamps.dt.tz is None else stamps.dt.tz_localize(None)


def _refuse(path: Path, frame: pd.DataFrame, column: str, bad: pd.Series | np.ndarray, why: str) -> None:
    rows = np.flatnonzero(np.asarray(bad))
    if len(rows):
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        value = frame[column].iloc[int(rows[0])]
        raise InputError(f"{path}, line {rows[0] + 2}: {column} {value!r} {why}{more}")


def _begin(path: Path, first: pd.Timestamp, last: pd.Timestamp, minutes: int, start: str | None) -> pd.Timestamp:
    latest = last - pd.Timedelta(minutes=minutes - 1)
    if latest < first:
        length = int((last - first) / pd.Timedelta(minutes=1)) + 1
        raise InputError(
            f"{path}: covers {length} minutes, fewer than the {minutes} of --minutes; use a lower --minutes"
        )
    if start is None:
        candidates = (first + pd.Timedelta(days=7)).ceil("D"), first.ceil("D"), first
        return next(t for t in candidates if t <= latest)
    try:
        begin = pd.Timestamp(start)
    except ValueError:
        raise InputError(
            f"--start {start!r} is not a date; use a form such as 2014-07-08 or 2014-07-08T06:00"
        ) from None
    if begin.tzinfo is not None:
        begin = begin.tz_localize(None)
    if not first <= begin <= latest:
        raise InputError(
            f"{path}: --start {start} with {minutes} minutes does not fit; use a time in {first} … {latest}"
        )
    return begin.floor("min") if begin.floor("min") >= first else first


def daily_traffic(
    scenario: Scenario | str, rng: np.random.Generator, minutes: int = MINUTES_PER_DAY, *, roughness: float = 0.03
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
