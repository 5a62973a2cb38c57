"""Coding of raw features as the integers 0 … size − 1 of a scenario, the same in every process.

A coding is learnt from a log once and stored as JSON beside the models. Values that are not in the log get a code, too.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marca_env.traffic.stamps import without_offset
from marca_env.utils.argument_types import checked_arguments, checked_fields
from marca_env.utils.dataclass_schema import from_plain, to_plain
from marca_env.utils.errors import InputError, one_line, shown, unknown_option
from marca_env.utils.files import read_json, write_json

FILE = "features.json"
MINUTES = 1440
_WHOLE = re.compile(r"-?\d+\.0+")


@dataclass(frozen=True)
@checked_fields
class FeatureCoding:
    """Rule that turns one column into a feature.

    - ``hash``: any values: a hash of their text (BLAKE2b, which is not salted) modulo ``size``.
    - ``frequency``: the ``size`` − 1 most frequent values of the log get one code each; all others share the last.
    - ``quantile``: numbers, cut at the quantiles of the log into at most ``size`` buckets of about equal count.
    - ``time``: the time of day, as date and time (ISO 8601) or as minute of the day, in ``size`` equal windows.
    - ``code``: integers 0 … ``size`` − 1, unchanged; other values are refused.
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

    def __post_init__(self) -> None:
        where = f"feature {self.name!r}"
        if self.coding not in CODINGS:
            raise InputError(f"{where}: {unknown_option('coding', self.coding, CODINGS)}")
        if self.size < 1:
            raise InputError(f"{where}: size is {self.size}; it needs at least one category")
        if self.coding == "time" and MINUTES % self.size:
            raise InputError(f"{where}: size is {self.size}; windows must divide a day of {MINUTES} minutes")


@dataclass(frozen=True)
class _Coder:
    learn: Callable[[FeatureCoding, pd.Series], dict[str, Any]]
    encode: Callable[[FeatureCoding, pd.Series, str], np.ndarray]


class FeatureCoder:
    """Coder of raw features of requests to states (B, F); build it with :meth:`fit` or :meth:`load`."""

    @checked_arguments
    def __init__(self, codings: Sequence[FeatureCoding]) -> None:
        self.codings = tuple(codings)

    @classmethod
    @checked_arguments
    def fit(cls, codings: Sequence[FeatureCoding], log: pd.DataFrame, where: str | Path = "log") -> FeatureCoder:
        """Learn quantiles and frequencies from a log.

        Raises:
            InputError: a column is missing, or has a value that its coding refuses; names ``where``, row and column.
        """
        learnt = []
        for coding in codings:
            column = _column(log, coding, where)
            CODINGS[coding.coding].encode(coding, column, str(where))  # refuses values that cannot be coded
            learnt.append(replace(coding, **CODINGS[coding.coding].learn(coding, column)))
        return cls(learnt)

    def encode(
        self, raw: pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]], where: str | Path = "requests"
    ) -> np.ndarray:
        """Return the states of raw requests, int64 (B, F).

        Args:
            raw: a table, columns by name, one request's values by name, or one mapping for each request.
            where: source of the requests, for messages.

        Raises:
            InputError: a column is missing, or has a value that is not a number, time or code although its coding
                needs one. Values that were not in the log are accepted, except for ``code``.
        """
        frame = _frame(raw)
        columns = [CODINGS[c.coding].encode(c, _column(frame, c, where), str(where)) for c in self.codings]
        return np.stack(columns, axis=1).astype(np.int64)

    @checked_arguments
    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(path, {"features": [to_plain(c) for c in self.codings]})

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
        except InputError as error:
            raise InputError(f"{path}: {error}; fit again") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not a coding of features ({one_line(error)}); run `marca fit` to fit again"
            ) from None
        return cls(codings)


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
    _refuse(coding, column, bad, where, "is neither a date and time nor a minute of the day (0 … 1439); correct it")
    return (minutes * coding.size // MINUTES).astype(np.int64)


def _checked_codes(coding: FeatureCoding, column: pd.Series, where: str) -> np.ndarray:
    numbers = _numbers(coding, column, where)
    bad = ~((numbers >= 0) & (numbers < coding.size) & (numbers % 1 == 0))
    remedy = f"is not a whole number of 0 … {coding.size - 1}; raise the size, or use coding 'hash'"
    _refuse(coding, column, bad, where, remedy)
    return numbers.astype(np.int64)


def _numbers(coding: FeatureCoding, column: pd.Series, where: str) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    missing = column.isna().to_numpy() | (column.astype(str).str.strip() == "").to_numpy()
    bad = (np.isnan(numbers) & ~missing) | np.isinf(numbers)
    _refuse(coding, column, bad, where, f"is not a number, which coding {coding.coding!r} needs; use 'hash'")
    return numbers


def _refuse(coding: FeatureCoding, column: pd.Series, bad: np.ndarray, where: str, problem: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        value = column.iloc[row]
        value = value.item() if isinstance(value, np.generic) else value
        at = f"row {row + 1}, column {coding.column!r} (feature {coding.name!r})"
        raise InputError(f"{where}: {at}: {value!r} {problem}")


def _learn_nothing(coding: FeatureCoding, column: pd.Series) -> dict[str, Any]:
    return {}


def _column(frame: pd.DataFrame, coding: FeatureCoding, where: str | Path) -> pd.Series:
    if coding.column not in frame.columns:
        columns = ", ".join(map(str, frame.columns))
        raise InputError(
            f"{where}: column {coding.column!r} of feature {coding.name!r} is missing (columns: {columns}); name the "
            "right column in the mapping"
        )
    return frame[coding.column]


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
"""Name of a coding → functions that learn it from a column and that encode a column."""
