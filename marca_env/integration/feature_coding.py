"""Coding of raw features as the codes and numbers of a scenario, the same in every process.

A coding is learnt from a log once and stored as JSON beside the models. Values that are not in the log get a code, too.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marca_env.integration.number_columns import NumberColumn, state_columns, width
from marca_env.traffic.stamps import without_offset
from marca_env.utils.argument_types import checked_arguments, checked_fields
from marca_env.utils.dataclass_schema import UNLESS_DEFAULT, from_plain, to_plain
from marca_env.utils.errors import InputError, RowsError, one_line, shown, unknown_option
from marca_env.utils.files import read_json, write_json

FILE = "features.json"
MINUTES = 1440
NUMERIC = "numeric"
_LARGEST = 1e15
_WHOLE = re.compile(r"-?\d+\.0+")


@dataclass(frozen=True)
@checked_fields
class FeatureCoding:
    """Rule that turns a column, or several columns of numbers, into a feature.

    - ``hash``: any values: a hash of their text (BLAKE2b, which is not salted) modulo ``size``.
    - ``frequency``: the ``size`` − 1 most frequent values of the log get one code each; all others share the last.
    - ``quantile``: numbers, cut at the quantiles of the log into at most ``size`` buckets of about equal count.
    - ``time``: the time of day, as date and time (ISO 8601) or as minute of the day, in ``size`` equal windows.
    - ``code``: integers 0 … ``size`` − 1, unchanged; other values are refused.
    - ``numeric``: ``size`` columns of numbers, standardised by the mean and standard deviation of the log, at most ±10.
      The mean stands in for a missing number; a column with missing numbers in the log gets a further number, 1 where
      it is missing and else 0.
    """

    name: str
    size: int
    column: str
    coding: str = "hash"
    values: tuple[str, ...] = ()
    """``frequency``: values with a separate code, as text."""
    edges: tuple[float, ...] = ()
    """``quantile``: greatest number of each bucket but the last."""
    fill: float = 0.0
    """``quantile``: median, which replaces a missing number."""
    numbers: tuple[NumberColumn, ...] = field(default=(), metadata=UNLESS_DEFAULT)
    """``numeric``: the columns, and how each is standardised."""

    def __post_init__(self) -> None:
        where = f"feature {self.name!r}"
        if self.coding not in (*CODINGS, NUMERIC):
            raise InputError(f"{where}: {unknown_option('coding', self.coding, (*CODINGS, NUMERIC))}")
        if self.size < 1:
            raise InputError(
                f"{where}: size is {self.size}; it needs at least one {'number' if self.is_number else 'category'}"
            )
        if self.coding == "time" and MINUTES % self.size:
            raise InputError(f"{where}: size is {self.size}; windows must divide a day of {MINUTES} minutes")
        if self.coding == NUMERIC and len(self.numbers) != self.size:
            raise InputError(f"{where}: size is {self.size}, but it has {len(self.numbers)} columns; give as many")

    @property
    def meaning(self) -> str:
        """What its columns hold, for messages."""
        return f"feature {self.name!r}"

    @property
    def is_number(self) -> bool:
        """Whether the feature is a vector of numbers, not a category."""
        return self.coding == NUMERIC

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a log that it reads."""
        return tuple(number.column for number in self.numbers) if self.is_number else (self.column,)

    @property
    def width(self) -> int:
        """Number of categories, or of numbers, of the feature."""
        return width(self.numbers) if self.is_number else self.size


@dataclass(frozen=True)
class _Coder:
    learn: Callable[[FeatureCoding, pd.Series], dict[str, Any]]
    encode: Callable[[FeatureCoding, pd.Series, str], np.ndarray]


class FeatureCoder:
    """Coder of raw features of requests to states (B, W); build it with :meth:`fit` or :meth:`load`.

    Args:
        codings: coding of each feature.
        signals: scale of each signal of the stages, in the scenario's order.
    """

    @checked_arguments
    def __init__(self, codings: Sequence[FeatureCoding], signals: Sequence[NumberColumn] = ()) -> None:
        self.codings, self.signals = tuple(codings), tuple(signals)

    @classmethod
    @checked_arguments
    def fit(cls, codings: Sequence[FeatureCoding], log: pd.DataFrame, where: str | Path = "log") -> FeatureCoder:
        """Learn quantiles, frequencies, means and standard deviations from a log.

        Raises:
            InputError: a column is missing, or has a value that its coding refuses; names ``where``, row and column.
        """
        learnt = []
        for coding in codings:
            if coding.is_number:
                pairs = zip(coding.numbers, _all_numbers(coding, log, where), strict=True)
                scales = tuple(NumberColumn.fit(n.column, numbers, str(where)) for n, numbers in pairs)
                learnt.append(replace(coding, numbers=scales))
                continue
            column = _column(log, coding.column, coding.meaning, where)
            CODINGS[coding.coding].encode(coding, column, str(where))  # refuses values that cannot be coded
            learnt.append(replace(coding, **CODINGS[coding.coding].learn(coding, column)))
        return cls(learnt)

    def encode(
        self, raw: pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]], where: str | Path = "requests"
    ) -> np.ndarray:
        """Return the states of raw requests: int64 (B, F), or float64 (B, W) where features are numbers.

        Args:
            raw: a table, columns by name, one request's values by name, or one mapping for each request.
            where: source of the requests, for messages.

        Raises:
            InputError: a column is missing.
            RowsError: a column has values that are not numbers, times or codes although its coding needs them. Values
                that were not in the log are accepted, except for ``code``.
        """
        frame = _frame(raw)
        columns = [
            state_columns(c.numbers, _all_numbers(c, frame, where))
            if c.is_number
            else CODINGS[c.coding].encode(c, _column(frame, c.column, c.meaning, where), str(where))
            for c in self.codings
        ]
        is_categorical = not any(coding.is_number for coding in self.codings)
        return np.column_stack(columns).astype(np.int64 if is_categorical else np.float64)

    def encode_signals(self, raw: pd.DataFrame | Mapping[str, Any], where: str | Path = "requests") -> np.ndarray:
        """Return the standardised signals (B, N) float64 of raw requests; the mean stands in for a missing one.

        Raises:
            InputError: a column is missing, or has a value that is not a finite number.
        """
        frame = _frame(raw)
        columns = [signal.standardise(read_numbers(frame, signal.column, where, "signal")) for signal in self.signals]
        return np.stack(columns, axis=1) if columns else np.empty((len(frame), 0))

    @checked_arguments
    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        described = {"features": [to_plain(c) for c in self.codings]}
        write_json(path, described | ({"signals": [to_plain(s) for s in self.signals]} if self.signals else {}))

    @classmethod
    @checked_arguments
    def load(cls, path: str | Path) -> FeatureCoder:
        """Read the file that :meth:`save` wrote; ``path`` is the file or a scenario's folder.

        Raises:
            InputError: the file is missing or damaged.
        """
        path = Path(path) / FILE if Path(path).is_dir() else Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; `marca fit --mapping` writes it")
        described = read_json(path, "run `marca fit` to fit again")
        try:
            codings = [from_plain(FeatureCoding, c, f"features[{k}]") for k, c in enumerate(described["features"])]
            scales = enumerate(described.get("signals", []))
            signals = [from_plain(NumberColumn, scale, f"signals[{k}]") for k, scale in scales]
        except InputError as error:
            raise InputError(f"{path}: {error}; fit again") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not a coding of features ({one_line(error)}); run `marca fit` to fit again"
            ) from None
        return cls(codings, signals)


def to_text(value: Any) -> str:
    """Return the text of a value for hashing and counting: 3, 3.0 and "3" are equal, a missing value is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    text = str(value)
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


def stable_hash(text: str) -> int:
    """Return 64 bits of BLAKE2b, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


# -- codings -----------------------------------------------------------------------------------------------------
def _distinct(column: pd.Series) -> tuple[list[str], np.ndarray]:
    """Return the distinct texts of a column, and the index of each row's text."""
    codes, values = pd.factorize(column, use_na_sentinel=False)
    return [to_text(v) for v in values], codes


def _hashed(coding: FeatureCoding, column: pd.Series, where: str) -> np.ndarray:
    texts, codes = _distinct(column)
    return np.array([stable_hash(t) % coding.size for t in texts])[codes]


def _frequencies(coding: FeatureCoding, column: pd.Series) -> dict[str, Any]:
    texts, codes = _distinct(column)
    counts: dict[str, int] = {}
    for text, count in zip(texts, np.bincount(codes, minlength=len(texts)), strict=True):
        counts[text] = counts.get(text, 0) + int(count)
    ranked = sorted(counts, key=lambda t: (-counts[t], t))
    return {"values": tuple(ranked[: coding.size - 1])}


def _ranked(coding: FeatureCoding, column: pd.Series, where: str) -> np.ndarray:
    code_of = {text: k for k, text in enumerate(coding.values)}
    texts, codes = _distinct(column)
    return np.array([code_of.get(t, coding.size - 1) for t in texts])[codes]


def _quantiles(coding: FeatureCoding, column: pd.Series) -> dict[str, Any]:
    numbers = _numbers(coding, column, "")
    present = numbers[~np.isnan(numbers)]
    if len(present) == 0:
        return {}
    inner = np.arange(1, coding.size) / coding.size
    edges = np.unique(np.quantile(present, inner, method="inverted_cdf"))
    return {"edges": tuple(float(e) for e in edges[edges < present.max()]), "fill": float(np.median(present))}


def _bucketed(coding: FeatureCoding, column: pd.Series, where: str) -> np.ndarray:
    numbers = _numbers(coding, column, where)
    filled = np.where(np.isnan(numbers), coding.fill, numbers)
    return np.searchsorted(np.array(coding.edges), filled, side="left")


def _time_windows(coding: FeatureCoding, column: pd.Series, where: str) -> np.ndarray:
    stamped = pd.api.types.is_datetime64_any_dtype(column)
    minutes = np.full(len(column), np.nan) if stamped else pd.to_numeric(column, errors="coerce").to_numpy(float)
    if np.isnan(minutes).any():
        texts = column if stamped else without_offset(column.astype(str).str.strip())
        stamps = column if stamped else pd.to_datetime(texts, errors="coerce", format="ISO8601")
        minutes = np.where(np.isnan(minutes), (stamps.dt.hour * 60 + stamps.dt.minute).to_numpy(float), minutes)
    bad = ~((minutes >= 0) & (minutes < MINUTES))
    _refuse(
        column, coding.meaning, bad, where, "is neither a date and time nor a minute of the day (0 … 1439); correct it"
    )
    return (minutes * coding.size // MINUTES).astype(np.int64)


def _checked_codes(coding: FeatureCoding, column: pd.Series, where: str) -> np.ndarray:
    numbers = _numbers(coding, column, where)
    bad = ~((numbers >= 0) & (numbers < coding.size) & (numbers % 1 == 0))
    remedy = f"is not a whole number of 0 … {coding.size - 1}; raise the size, or use coding 'hash'"
    _refuse(column, coding.meaning, bad, where, remedy)
    return numbers.astype(np.int64)


def _numbers(coding: FeatureCoding, column: pd.Series, where: str) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    missing = column.isna().to_numpy() | (column.astype(str).str.strip() == "").to_numpy()
    bad = (np.isnan(numbers) & ~missing) | np.isinf(numbers)
    _refuse(column, coding.meaning, bad, where, f"is not a number, which coding {coding.coding!r} needs; use 'hash'")
    return numbers


def _all_numbers(coding: FeatureCoding, frame: pd.DataFrame, where: str | Path) -> list[np.ndarray]:
    """Return the numbers of every column of a numeric feature, nan where missing."""
    return [read_numbers(frame, number.column, where, coding.meaning) for number in coding.numbers]


def read_numbers(frame: pd.DataFrame, name: str, where: str | Path, meaning: str) -> np.ndarray:
    """Return a column of numbers (B,) float64, nan where missing.

    Raises:
        InputError: the column is missing, or has a value that is not a number, not finite or larger than 10¹⁵; names
            ``where``, row and column.
    """
    column = _column(frame, name, meaning, where)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float, na_value=np.nan)
    missing = column.isna().to_numpy() | (column.astype(str).str.strip() == "").to_numpy()
    problem = "is not a finite number; correct it, leave it empty, or use another coding"
    _refuse(column, meaning, (np.isnan(numbers) & ~missing) | np.isinf(numbers), where, problem)
    _refuse(column, meaning, np.abs(numbers) > _LARGEST, where, f"is larger than {_LARGEST:g}; correct it")
    return numbers


def _refuse(column: pd.Series, meaning: str, bad: np.ndarray, where: str | Path, problem: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        value = column.iloc[row]
        value = value.item() if isinstance(value, np.generic) else value
        message = f"{where}: row {row + 1}, column {str(column.name)!r} ({meaning}): {value!r} {problem}"
        raise RowsError(message, str(column.name), np.asarray(bad, dtype=bool))


def _learn_nothing(coding: FeatureCoding, column: pd.Series) -> dict[str, Any]:
    return {}


def _column(frame: pd.DataFrame, name: str, meaning: str, where: str | Path) -> pd.Series:
    if name not in frame.columns:
        columns = ", ".join(map(str, frame.columns))
        raise InputError(
            f"{where}: column {name!r} of {meaning} is missing (columns: {columns}); name the right column in the "
            "mapping"
        )
    return frame[name]


def _frame(raw: Any) -> pd.DataFrame:
    if isinstance(raw, pd.DataFrame):
        return raw
    try:
        if isinstance(raw, Mapping) and all(np.ndim(v) == 0 for v in raw.values()):
            raw = [raw]
        return pd.DataFrame(raw, dtype=object)
    except Exception:  # pandas refuses in many ways
        raise InputError(
            f"requests are {shown(raw)}; pass a table, columns by name, or one mapping for each request"
        ) from None


CODINGS = {
    "hash": _Coder(_learn_nothing, _hashed),
    "frequency": _Coder(_frequencies, _ranked),
    "quantile": _Coder(_quantiles, _bucketed),
    "time": _Coder(_learn_nothing, _time_windows),
    "code": _Coder(_learn_nothing, _checked_codes),
}
"""Name of a coding of categories → functions that learn it from a column and that encode a column."""
