"""Stamps of a trace as instants, with the local clock: dates in many forms, epoch numbers, summer time.

Instants are microseconds since 1970, int64: of UTC if a stamp has an offset or a time zone is given, else of the local
clock, which then counts as a clock without summer time.
"""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass
from datetime import tzinfo

import numpy as np
import pandas as pd

from marca_env.traffic.trace_columns import TraceColumn
from marca_env.utils.errors import InputError

SECOND = 1_000_000
"""Microseconds of a second."""
MINUTE = 60 * SECOND
FIRST_YEAR, LAST_YEAR = 1970, 2099
_EARLIEST = 0
_LATEST = int(np.datetime64(f"{LAST_YEAR + 1}-01-01", "us").astype(np.int64))
_EPOCH_UNITS = ((1e8, 1e11, SECOND), (1e11, 1e14, 1000), (1e14, 1e17, 1), (1e17, 1e19, 0.001))
"""(least, below, microseconds) of the numbers that count seconds, milliseconds, microseconds and nanoseconds."""
_OFFSET = r"[T ]\d{1,2}:?\d{2}[^+Zz-]*?\s*(Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
_ABBREVIATION = re.compile(r"\d\s*[A-Z]{3,4}$")
_DAY_MONTH_YEAR = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})(,?[ T]+)?(.*)")
_YEAR_MONTH_DAY = re.compile(r"\d{4}([./])\d{1,2}\1\d{1,2}([ T]+)?(.*)")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2})?(\.\d+)?(\s*)([AaPp][Mm])?")
_FORMS = "write 2020-01-31 06:30, 31.01.2020 06:30 or epoch seconds"


@dataclass(frozen=True)
class LocalClock:
    """The offset of the local clock from UTC, which changes with summer time."""

    starts: np.ndarray
    """(k,) instants from which an offset holds, ascending, int64 microseconds of UTC; the first holds before, too."""
    offsets: np.ndarray
    """(k,) local clock less UTC, int64 microseconds."""

    @classmethod
    def of(cls, instants: np.ndarray, offsets: np.ndarray) -> LocalClock:
        """Return the clock that has these offsets at these instants, both (n,)."""
        changes = np.concatenate([[0], 1 + np.flatnonzero(np.diff(offsets))])
        return cls(instants[changes], offsets[changes])

    @classmethod
    def fixed(cls, offset: int = 0) -> LocalClock:
        """Return a clock without summer time."""
        return cls(np.zeros(1, np.int64), np.array([offset], np.int64))

    def to_local(self, instants: np.ndarray) -> np.ndarray:
        """Return the local clock at instants of UTC."""
        return instants + self._at(self.starts, instants)

    def to_utc(self, local: np.ndarray) -> np.ndarray:
        """Return instants of UTC; a repeated hour counts as its second pass, a missing one as the hour after it."""
        return local - self._at(self.starts + self.offsets, local)

    def _at(self, starts: np.ndarray, times: np.ndarray) -> np.ndarray:
        return self.offsets[np.maximum(np.searchsorted(starts, times, side="right") - 1, 0)]


def read_stamps(column: TraceColumn, timezone: str | None = None) -> tuple[np.ndarray, LocalClock]:
    """Return the instants of a column, (rows,), and the local clock.

    Args:
        column: dates and times, or numbers that count seconds, milli-, micro- or nanoseconds since 1970.
        timezone: name of the local time zone, such as Europe/Berlin. Stamps without an offset are of its clock; others
            are converted to it. ``None``: the local clock is that of the stamps.

    Raises:
        InputError: an unknown time zone, or a stamp that cannot be read, lies outside of 1970 to 2099, or does not
            exist in the time zone. The message names file, line and column.
    """
    zone = None if timezone is None else _zone(timezone)
    instants, offsets = _native(column) if not column.is_text else _from_text(column)
    column.refuse((instants < _EARLIEST) | (instants >= _LATEST), f"is not in the years {FIRST_YEAR} to {LAST_YEAR}")
    if zone is None:
        return instants, LocalClock.fixed() if offsets is None else LocalClock.of(instants, offsets)
    if offsets is None:
        instants = _localised(column, instants, zone)
    return instants, LocalClock.of(instants, _zone_offsets(instants, zone))


def check_timezone(timezone: str | None) -> None:
    """Check the name of a time zone; ``None`` is none.

    Raises:
        InputError: no such time zone.
    """
    if timezone is not None:
        _zone(timezone)


def _zone(timezone: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        raise InputError(
            f"--timezone {str(timezone)[:60]!r}: unknown; use a name such as Europe/Berlin or UTC"
        ) from None


# -- values that are not text ---------------------------------------------------------------------------------
def _native(column: TraceColumn) -> tuple[np.ndarray, np.ndarray | None]:
    """Return instants and offsets of a column of dates or numbers; offsets are ``None`` for a clock without one."""
    values = column.values
    column.refuse(values.isna(), "is empty; fill in the stamp or drop the row")
    if pd.api.types.is_datetime64_any_dtype(values):
        zone = values.dt.tz
        instants = (values if zone is None else values.dt.tz_convert("UTC").dt.tz_localize(None)).astype(
            "datetime64[us]"
        )
        counts = instants.to_numpy().astype(np.int64)
        return counts, None if zone is None else _zone_offsets(counts, zone)
    if pd.api.types.is_bool_dtype(values):
        raise InputError(f"{column.path}: column {column.name!r} holds true and false, not dates; pass --time-column")
    return _from_numbers(column, values)


def _from_numbers(column: TraceColumn, numbers: pd.Series) -> tuple[np.ndarray, np.ndarray | None]:
    """Return instants and offsets of numbers that count from 1970 in UTC, or that spell a local date as 20200131."""
    as_float = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    column.refuse(~np.isfinite(as_float), "is not finite; fill in the stamp or drop the row")
    if (spelt := _from_digits(column)) is not None:
        return spelt, None
    middle = float(np.median(as_float))
    unit = next((size for low, high, size in _EPOCH_UNITS if low <= middle < high), None)
    if unit is None:
        raise InputError(
            f"{column.place(0)} looks like a counter, not like a date or seconds since 1970; {_FORMS}, or pass "
            "--time-column"
        )
    latest = _LATEST / unit
    column.refuse((as_float < 0) | (as_float >= latest), f"is not in the years {FIRST_YEAR} to {LAST_YEAR}")
    in_utc = np.zeros(len(as_float), np.int64)
    if unit < 1:  # whole numbers beyond the precision of floating point
        return numbers.astype(np.int64).to_numpy() // 1000, in_utc
    return np.round(as_float * unit).astype(np.int64), in_utc


def _from_digits(column: TraceColumn) -> np.ndarray | None:
    """Return the instants of 20200131, 202001310630 or 20200131063000; ``None`` if the digits are no such dates."""
    texts = column.values.astype(str).str.strip()
    for digits, form in ((8, "%Y%m%d"), (12, "%Y%m%d%H%M"), (14, "%Y%m%d%H%M%S")):
        if texts.str.fullmatch(rf"(?:19|20)\d{{{digits - 2}}}").all():
            dates = pd.to_datetime(texts, format=form, errors="coerce")
            return None if dates.isna().any() else _microseconds(dates)
    return None


# -- text --------------------------------------------------------------------------------------------------------
def _from_text(column: TraceColumn) -> tuple[np.ndarray, np.ndarray | None]:
    """Return instants and offsets of a column of text; offsets are ``None`` for a clock without one."""
    texts = column.values.astype("string").fillna("").str.strip()
    column.refuse(texts == "", "is empty; fill in the stamp or drop the row")
    numbers = pd.to_numeric(texts, errors="coerce")
    if numbers.notna().all():
        return _from_numbers(column, numbers)
    texts = texts.str.replace(r"(:\d{2}),(\d+)", r"\1.\2", regex=True)  # decimal comma of the seconds
    offsets = texts.str.extract(_OFFSET, expand=False)
    with_offset = offsets.notna().to_numpy()
    if not with_offset.any():
        return _microseconds(_dates(column, texts)), None
    column.refuse(~with_offset, "has no offset from UTC although others do; write the same form in every row")
    amounts = offsets.map({text: _offset(text) for text in offsets.unique()}).to_numpy(dtype=np.int64)
    return _microseconds(_dates(column, without_offset(texts))) - amounts, amounts


def without_offset(texts: pd.Series) -> pd.Series:
    """Return dates as text without their offsets from UTC: each as its own local clock shows it."""
    has_offset = texts.str.contains(_OFFSET.replace("(Z", "(?:Z"), regex=True)
    return texts.mask(has_offset, texts.str.replace(r"\s*(?:Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$", "", regex=True))


def _offset(text: str) -> int:
    """Return an offset such as +02:00 in microseconds."""
    if text[0] not in "+-":
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    return (-1 if text[0] == "-" else 1) * (60 * int(digits[:2]) + int(digits[2:])) * MINUTE


def _dates(column: TraceColumn, texts: pd.Series) -> pd.Series:
    """Return text without offsets as dates."""
    dates = pd.to_datetime(texts, errors="coerce", format="ISO8601")
    if dates.isna().any():
        options = [pd.to_datetime(texts, errors="coerce", format=form) for form in _formats(texts.iloc[0])]
        options = [d for d in options if d.notna().mean() > 0.5]
        dates = min([dates, *options], key=_implausibility) if options else dates
    first = texts.iloc[int(dates.isna().argmax())] if dates.isna().any() else ""
    if _ABBREVIATION.search(first):
        column.refuse(dates.isna(), "ends with a name of a time zone; write an offset such as +02:00")
    column.refuse(dates.isna(), f"is not a date and time; {_FORMS}")
    return dates


def _implausibility(dates: pd.Series) -> tuple[int, int, float]:
    """Return a key that is lowest for the reading without gaps, in order of time, with the shortest span."""
    steps = dates.diff().dt.total_seconds()
    return int(dates.isna().sum()), int((steps <= 0).sum()), float(steps.abs().max())


def _formats(sample: str) -> list[str]:
    """Return the formats that a stamp may have; of two equally plausible ones the first is used."""
    if match := _DAY_MONTH_YEAR.fullmatch(sample):
        mark, year, gap = match[2], "%Y" if len(match[4]) == 4 else "%y", match[5] or ""
        clock = _clock_format(match[6])
        european, american = (f"{order}{mark}{year}{gap}{clock}" for order in (f"%d{mark}%m", f"%m{mark}%d"))
        return [american, european] if mark == "/" else [european, american]
    if match := _YEAR_MONTH_DAY.fullmatch(sample):
        return [f"%Y{match[1]}%m{match[1]}%d{match[2] or ''}{_clock_format(match[3])}"]
    guess = pd.tseries.api.guess_datetime_format(sample)
    return [] if guess is None else [guess]


def _clock_format(text: str) -> str:
    """Return the format of a time of day such as 6:30 or 06:30:15.5 PM."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return ""
    seconds = ":%S" if match[1] else ""
    hour, half = ("%I", f"{match[3]}%p") if match[4] else ("%H", "")
    return f"{hour}:%M{seconds}{'.%f' if match[2] else ''}{half}"


def _microseconds(dates: pd.Series) -> np.ndarray:
    return dates.astype("datetime64[us]").to_numpy().astype(np.int64)


# -- time zones ------------------------------------------------------------------------------------------------
def _zone_offsets(instants: np.ndarray, zone: tzinfo) -> np.ndarray:
    """Return the offset of a time zone at instants of UTC."""
    local = pd.DatetimeIndex(instants.astype("datetime64[us]")).tz_localize("UTC").tz_convert(zone).tz_localize(None)
    return local.as_unit("us").asi8 - instants


def _localised(column: TraceColumn, local: np.ndarray, zone: zoneinfo.ZoneInfo) -> np.ndarray:
    """Return instants of UTC of a local clock; in a repeated hour the second pass begins where the clock goes back."""
    index = pd.DatetimeIndex(local.astype("datetime64[us]"))
    is_repeated = index.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward").isna().astype(bool)
    is_second = np.zeros(len(local), dtype=bool)
    for span in _runs(np.asarray(is_repeated)):
        back = np.flatnonzero(np.diff(local[span]) <= 0)
        if len(back):
            is_second[span.start + int(back[0]) + 1 : span.stop] = True
    zoned = index.tz_localize(zone, ambiguous=~is_second, nonexistent="NaT")
    column.refuse(
        np.asarray(zoned.isna()),
        f"does not exist in {zone.key}, whose clock goes forward there; pass the --timezone of the trace",
    )
    return zoned.tz_convert("UTC").tz_localize(None).as_unit("us").asi8


def _runs(holds: np.ndarray) -> list[slice]:
    """Return the stretches of consecutive values that hold."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], holds.astype(np.int8), [0]])))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
