"""Reader of a time series from a file: finds the columns, reads stamps and values, and checks them.

Text with any separator, encoding and compression is read (:mod:`marca_env.logs.text_tables`), and Parquet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from marca_env.logs.log_files import read_table
from marca_env.logs.numbers import parse_numbers
from marca_env.logs.text_tables import read_text_table
from marca_env.traffic.stamps import LocalClock, check_timezone, read_stamps
from marca_env.traffic.trace_columns import TraceColumn
from marca_env.utils.argument_types import checked_fields
from marca_env.utils.errors import InputError, unknown_option

Fill = Literal["interpolate", "previous", "zero", "error"]
Outliers = Literal["drop", "keep", "error"]
FILLS: tuple[str, ...] = get_args(Fill)
OUTLIERS: tuple[str, ...] = get_args(Outliers)
LARGEST = 1e15
"""Largest value of a trace; no service has more requests, and larger ones overflow the arithmetic."""
TIME_NAMES = (
    *("timestamp", "time", "datetime", "date", "ts", "stamp", "utc", "epoch", "unixtime", "unix", "localtime"),
    *("eventtime", "timeutc", "dateandtime", "zeit", "datum", "zeitstempel", "day", "hour"),
)
VALUE_NAMES = ("value", "qps", "rps", "requests", "requestspersecond", "rate", "count")
_SAMPLE = 200  # values that decide whether a column holds numbers or dates


@dataclass(frozen=True)
@checked_fields
class TraceOptions:
    """How to read a trace."""

    time_column: str | None = None
    """Name of the column of dates; ``None``: found by its name and values."""
    value_column: str | None = None
    """Name of the column of values; ``None``: the one called value, or the only one with numbers."""
    timezone: str | None = None
    """Time zone of the local clock, such as Europe/Berlin; ``None``: the clock of the stamps."""
    fill: Fill = "interpolate"
    """Value in a gap of more than three intervals: ``interpolate`` between its ends, the ``previous`` value, ``zero``,
    or ``error``. Shorter gaps are interpolated."""
    outliers: Outliers = "drop"
    """Use of an absurd sample, far above all others and alone: ``drop`` it, ``keep`` it, or ``error``."""

    def __post_init__(self) -> None:
        check_timezone(self.timezone)
        for name, value, valid in (("fill", self.fill, FILLS), ("outliers", self.outliers, OUTLIERS)):
            if value not in valid:
                raise InputError(f"--{name}: {unknown_option('choice', value, valid)}")


@dataclass(frozen=True)
class TimeSeries:
    """Samples in the order of time."""

    column: TraceColumn
    """The column of values, for messages."""
    instants: np.ndarray
    """(n,) int64 microseconds since 1970, of UTC or of a clock without summer time; strictly ascending."""
    values: np.ndarray
    """(n,) float64, finite and not negative."""
    clock: LocalClock
    """The local clock."""

    @property
    def interval(self) -> int:
        """Usual distance of two samples, microseconds."""
        return max(1, int(np.median(np.diff(self.instants))))

    def subset(self, keep: np.ndarray) -> TimeSeries:
        """Return some of the samples, bool (n,)."""
        return TimeSeries(self.column.subset(keep), self.instants[keep], self.values[keep], self.clock)


def read_series(path: Path, options: TraceOptions) -> TimeSeries:
    """Read the samples of a file that have a value.

    Raises:
        InputError: an unreadable file, no column that fits, stamps that are unsorted or repeat, values that are not
            numbers, infinite, negative or above :data:`LARGEST`, or fewer than two samples. The message names file,
            line and column.
    """
    columns = _columns(path)
    time = _time_column(columns, options.time_column)
    others = [c for c in columns if c is not time]
    if not others:
        raise InputError(f"{path}: column {time.name!r} alone; a trace needs a column of values, too")
    value = _value_column(others, options.value_column)
    if len(time.values) < 2:
        raise InputError(f"{path}: {len(time.values)} rows; a trace needs at least two")
    instants, clock = read_stamps(time, options.timezone)
    _check_order(time, instants, options)
    numbers, missing = _numbers(value)
    if (n := int((~missing).sum())) < 2:
        rows = f"{n} row{'s' * (n != 1)}"
        raise InputError(f"{path}: column {value.name!r} has {rows} with a value; a trace needs at least two")
    return TimeSeries(value, instants, numbers, clock).subset(~missing)


# -- columns -----------------------------------------------------------------------------------------------------
def _columns(path: Path) -> list[TraceColumn]:
    """Return the columns of a text or Parquet file."""
    if not path.is_file():
        raise InputError(f"{path}: no such trace file; check the path")
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1" or path.suffix == ".parquet"
    if is_parquet:
        frame = read_table(path, suffix=".parquet")
        frame = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
        rows = 1 + np.arange(len(frame))
        return [TraceColumn(path, str(name), frame.iloc[:, k], rows, "row") for k, name in enumerate(frame.columns)]
    table = read_text_table(path)
    named = [(str(name), table.frame.iloc[:, k]) for k, name in enumerate(table.frame.columns)]
    columns = [TraceColumn(path, name, values, table.lines, "line", table.separator) for name, values in named]
    return _with_joined_dates(columns)


def _with_joined_dates(columns: list[TraceColumn]) -> list[TraceColumn]:
    """Join a column of dates and one of times of day into one."""
    by_name = {_simple(c.name): c for c in columns}
    date, time = by_name.get("date"), by_name.get("time")
    if date is None or time is None or not time.values.str.match(r"\d{1,2}:\d{2}").all():
        return columns
    joined = TraceColumn(
        date.path, f"{date.name} {time.name}", date.values + " " + time.values, date.rows, date.unit, date.separator
    )
    return [joined, *(c for c in columns if c is not date and c is not time)]


def _simple(name: str) -> str:
    """Return a name without case, blanks and marks."""
    return re.sub(r"[\W_]+", "", name).lower()


def _named(columns: Sequence[TraceColumn], name: str, option: str) -> TraceColumn:
    """Return the column that the user names, whatever its case and blanks."""
    found = [c for c in columns if c.name == name] or [c for c in columns if _simple(c.name) == _simple(name)]
    if not found:
        where = f"{columns[0].path}: " if columns else ""
        raise InputError(f"{where}{option}: {unknown_option('column', name[:60], [c.name[:60] for c in columns])}")
    if len(found) > 1:
        raise InputError(f"{found[0].path}: {option} {name!r}: {len(found)} columns have this name; rename one")
    return found[0]


def _time_column(columns: Sequence[TraceColumn], name: str | None) -> TraceColumn:
    """Return the column of dates: the one named, or one with a usual name, or the first that holds dates."""
    if name is not None:
        return _named(columns, name, "--time-column")
    usual = [c for known in TIME_NAMES for c in columns if _simple(c.name) == known]
    column = next(iter(usual), None) or next((c for c in columns if _holds_dates(c)), None)
    if column is None:
        raise InputError(
            f"{columns[0].path}: no column of dates (found: {_list(columns)}); write dates such as "
            "2020-01-31 06:30, or pass --time-column with its name"
        )
    return column


def _value_column(columns: Sequence[TraceColumn], name: str | None) -> TraceColumn:
    """Return the column of values: the one named, or one with a usual name, or the only one that holds numbers."""
    if name is not None:
        return _named(columns, name, "--value-column")
    usual = [c for known in VALUE_NAMES for c in columns if _simple(c.name) == known]
    numeric = usual[:1] or [c for c in columns if _holds_numbers(c)]
    if not numeric and len(columns) == 1:
        return columns[0]  # the message about its first value says more
    if len(numeric) != 1:
        which = "several columns could be" if numeric else "no column holds"
        found = f"{which} the values (found: {_list(columns)})"
        raise InputError(f"{columns[0].path}: {found}; pass --value-column with its name")
    return numeric[0]


def _list(columns: Sequence[TraceColumn]) -> str:
    """Return the names of columns, each with its first value."""
    names = ", ".join(f"{c.name} {str(c.values.iloc[0])[:20]!r}" if len(c.values) else c.name for c in columns)
    return names if len(names) <= 200 else names[:200] + "…"


def _sample(column: TraceColumn) -> TraceColumn:
    return column.subset(np.arange(len(column.values)) < _SAMPLE)


def _holds_dates(column: TraceColumn) -> bool:
    try:
        read_stamps(_sample(column))
    except InputError:
        return False
    return True


def _holds_numbers(column: TraceColumn) -> bool:
    if not column.is_text:
        return bool(pd.api.types.is_numeric_dtype(column.values))
    numbers, missing = parse_numbers(_sample(column).values.astype(str), column.separator)
    return bool((~missing).any() and not np.isnan(numbers[~missing]).any())


# -- values --------------------------------------------------------------------------------------------------------
def _numbers(column: TraceColumn) -> tuple[np.ndarray, np.ndarray]:
    """Return the values, and which are missing."""
    values = column.values
    if column.is_text:
        numbers, missing = parse_numbers(values.astype("string").fillna("").astype(str), column.separator)
    elif pd.api.types.is_numeric_dtype(values) and values.dtype.kind in "iuf":
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        missing = np.isnan(numbers)
    else:
        raise InputError(f"{column.path}: column {column.name!r} holds {values.dtype}, not numbers; use --value-column")
    column.refuse(np.isnan(numbers) & ~missing, "is not a number; keep the number alone, without a unit")
    column.refuse(np.isinf(numbers), "is not a finite number; fill or drop the row")
    column.refuse(numbers < 0, "is negative; traffic must be zero or more")
    column.refuse(numbers > LARGEST, f"is above {LARGEST:g}, more than any service has; correct it or drop the row")
    return numbers, missing


def _check_order(column: TraceColumn, instants: np.ndarray, options: TraceOptions) -> None:
    """Check that the stamps ascend."""
    step = np.diff(instants, prepend=instants[0] - 1)
    back = step[step < 0]
    hint = ""
    if options.timezone is None and len(back) and back.max() >= -3_600_000_000 and len(back) < 0.01 * len(step):
        hint = ", or pass --timezone if the local clock was put back there"
    column.refuse(step == 0, "repeats the stamp before; keep one row per stamp")
    column.refuse(step < 0, f"is earlier than the row before; sort the file by time{hint}")
