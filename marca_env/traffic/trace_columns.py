"""A column of a trace with its place in the file, and the errors that name it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from marca_env.utils.errors import InputError

_LONGEST_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class TraceColumn:
    """A column with its place in the file."""

    path: Path
    name: str
    values: pd.Series
    """As read: text, or the type that Parquet says."""
    rows: np.ndarray
    """Line of a text file, or row of a Parquet file, of each value; both from 1 on."""
    unit: str = "line"
    """``line`` or ``row``."""
    separator: str = ","
    """Separator of the file's fields."""

    @property
    def is_text(self) -> bool:
        """Whether the values are text."""
        return not (pd.api.types.is_numeric_dtype(self.values) or pd.api.types.is_datetime64_any_dtype(self.values))

    def place(self, k: int) -> str:
        """Return the place of value ``k``: file, line and column, and the value itself."""
        value = self.values.iloc[k]
        shown = repr(value.item() if isinstance(value, np.generic) else str(value))
        shown = shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + "…"
        return f"{self.path}, {self.unit} {self.rows[k]}: {self.name} {shown}"

    def refuse(self, bad: np.ndarray | pd.Series, why: str) -> None:
        """Raise an error that names the first bad value, if there is one.

        Raises:
            InputError: ``bad`` holds somewhere.
        """
        found = np.flatnonzero(np.asarray(bad, dtype=bool))
        if len(found):
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise InputError(f"{self.place(int(found[0]))} {why}{more}")

    def subset(self, keep: np.ndarray) -> TraceColumn:
        """Return the column with some of its values, bool (rows,)."""
        values = self.values[keep].reset_index(drop=True)
        return TraceColumn(self.path, self.name, values, self.rows[keep], self.unit, self.separator)
