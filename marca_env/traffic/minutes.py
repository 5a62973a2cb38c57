"""A time series minute by minute: samples within a minute are averaged, longer intervals are interpolated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from marca_env.traffic.stamps import MINUTE
from marca_env.traffic.time_series import Fill, Outliers, TimeSeries
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY

GAP_INTERVALS = 3
"""A distance of more than this many intervals between two samples is a gap."""
OUTLIER_FACTOR = 100.0
"""An absurd sample exceeds the median of its series by this factor …"""
NEIGHBOUR_FACTOR = 20.0
"""… and the median of the samples around it by this one, so that a sale that lasts is not absurd."""
_NEIGHBOURS = 9  # samples around, the sample itself in the middle


@dataclass(frozen=True)
class Gaps:
    """The gaps of a series, oldest first."""

    starts: np.ndarray
    """(n,) instants of the last sample before each, int64 microseconds."""
    ends: np.ndarray
    """(n,) instants of the first sample after each."""

    def __len__(self) -> int:
        return len(self.starts)

    def within(self, begin: int, end: int) -> Gaps:
        """Return the gaps that touch a span of time."""
        inside = (self.ends > begin) & (self.starts < end)
        return Gaps(self.starts[inside], self.ends[inside])

    def describe(self, local: Callable[[np.ndarray], np.ndarray]) -> str:
        """Describe number, length and place of the gaps; ``local`` turns instants into the local clock."""
        lengths = self.ends - self.starts
        longest = int(lengths.argmax())
        start = show(int(local(self.starts[longest : longest + 1])[0]))
        if len(self) == 1:
            return f"a gap of {duration(int(lengths[0]))} from {start}"
        return (
            f"{len(self)} gaps of {duration(int(lengths.sum()))} in all; "
            f"the longest of {duration(int(lengths[longest]))} from {start}"
        )


def show(instant: int) -> str:
    """Return an instant as date and time."""
    return str(pd.Timestamp(instant, unit="us").floor("s"))


def duration(microseconds: int) -> str:
    """Return a length of time in the unit that suits it."""
    minutes = microseconds / MINUTE
    if minutes < 2:
        return f"{60 * minutes:.3g} seconds"
    if minutes < 180:
        return f"{minutes:.3g} minutes"
    hours = minutes / 60
    return f"{hours:.3g} hours" if hours < 72 else f"{minutes / MINUTES_PER_DAY:.3g} days"


def find_gaps(series: TimeSeries) -> Gaps:
    """Return the gaps of more than :data:`GAP_INTERVALS` usual intervals."""
    wide = np.flatnonzero(np.diff(series.instants) > GAP_INTERVALS * series.interval)
    return Gaps(series.instants[wide], series.instants[wide + 1])


def without_outliers(series: TimeSeries, use: Outliers) -> tuple[TimeSeries, list[str]]:
    """Return the series without absurd samples, and notes that name them; ``keep`` only names them.

    Raises:
        InputError: there is one, and ``use`` is ``error``.
    """
    absurd = np.flatnonzero(_absurd(series.values))
    if len(absurd) == 0:
        return series, []
    worst = int(absurd[series.values[absurd].argmax()])
    factor = series.values[worst] / _usual(series.values)
    more = f" (and {len(absurd) - 1} more)" if len(absurd) > 1 else ""
    problem = f"{series.column.place(worst)} is {factor:,.0f} times the median, alone among its neighbours{more}"
    if use == "error":
        raise InputError(f"{problem}; correct it, or use --outliers drop")
    if use == "keep":
        return series, [f"{problem}; it is kept"]
    keep = np.ones(len(series.values), dtype=bool)
    keep[absurd] = False
    return series.subset(keep), [f"{problem}; it is left out (--outliers keep uses it)"]


def _absurd(values: np.ndarray) -> np.ndarray:
    """Return which values (n,) are far above the usual one and far above the values around them."""
    candidates = values > OUTLIER_FACTOR * _usual(values)
    if not candidates.any():
        return candidates
    around = pd.Series(values).rolling(_NEIGHBOURS, center=True, min_periods=1).median().to_numpy()
    return candidates & (values > NEIGHBOUR_FACTOR * around)


def _usual(values: np.ndarray) -> float:
    """Return the median of the values above zero; infinity if all are zero."""
    positive = values[values > 0]
    return float(np.median(positive)) if len(positive) else np.inf


class MinuteSeries:
    """A series as means of minutes; the last sample counts for its whole interval.

    Args:
        series: at least two samples.
        fill: value in a gap.

    Attributes:
        first: the first minute, int64 microseconds.
        end: the minute after the last one.
        gaps: the gaps.
    """

    def __init__(self, series: TimeSeries, fill: Fill = "interpolate") -> None:
        self.series, self.fill, self.gaps = series, fill, find_gaps(series)
        begin, over = int(series.instants[0]), int(series.instants[-1]) + series.interval
        late, early = begin % MINUTE, -over % MINUTE
        is_whole = series.interval >= MINUTE
        self.first = begin - late if is_whole or late < series.interval else begin - late + MINUTE
        self.end = over + early if is_whole or early < series.interval else over + early - MINUTE
        self._instants, self._values = (
            _minute_means(series)
            if series.interval < MINUTE
            else (
                series.instants,
                series.values,
            )
        )

    def __len__(self) -> int:
        return max(0, (self.end - self.first) // MINUTE)

    def at(self, minutes: np.ndarray) -> np.ndarray:
        """Return the values of minutes, given by their first instants (n,)."""
        values = np.interp(minutes, self._instants, self._values)
        for start, end in zip(self.gaps.starts, self.gaps.ends, strict=True):
            if self.fill in ("previous", "zero"):
                inside = (minutes >= start + self.series.interval) & (minutes < end)
                before = self._values[np.searchsorted(self._instants, start, side="right") - 1]
                values[inside] = before if self.fill == "previous" else 0.0
        return values


def _minute_means(series: TimeSeries) -> tuple[np.ndarray, np.ndarray]:
    """Return the minutes that hold samples, and the mean of each."""
    minutes, index = np.unique(series.instants // MINUTE, return_inverse=True)
    return minutes * MINUTE, np.bincount(index, weights=series.values) / np.bincount(index)
