"""Standardising columns of numbers by the mean and standard deviation of a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marca_env.scenario.encoding import NUMBER_LIMIT
from marca_env.utils.argument_types import checked_fields
from marca_env.utils.errors import InputError

_CONSTANT = 1e-9


@dataclass(frozen=True)
@checked_fields
class NumberColumn:
    """Scale of one column: what is encoded is (number − mean) / std, at most ±10."""

    column: str
    mean: float = 0.0
    std: float = 1.0
    missing: float = 0.0
    """Share of the log's rows without a number. The mean stands in for a missing number."""

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise InputError(f"column {self.column!r}: std is {self.std}; it must be positive")

    @classmethod
    def fit(cls, column: str, numbers: np.ndarray, where: str) -> NumberColumn:
        """Take the scale from numbers (M,), nan where missing.

        Raises:
            InputError: there are no numbers at all.
        """
        present = numbers[~np.isnan(numbers)]
        if len(present) == 0:
            raise InputError(f"{where}: column {column!r} has no numbers; fill it in, or leave it out of the mapping")
        mean, std = float(present.mean()), float(present.std())
        is_constant = std <= _CONSTANT * abs(mean) or std == 0.0  # up to rounding
        return cls(column, mean, 1.0 if is_constant else std, float(np.isnan(numbers).mean()))

    def standardise(self, numbers: np.ndarray) -> np.ndarray:
        """Return standardised numbers: (M,), nan where missing → (M,) float64."""
        filled = np.where(np.isnan(numbers), self.mean, numbers)
        return ((filled - self.mean) / self.std).clip(-NUMBER_LIMIT, NUMBER_LIMIT)


def state_columns(columns: Sequence[NumberColumn], numbers: Sequence[np.ndarray]) -> np.ndarray:
    """Return the columns of a state: standardised numbers, then 0 or 1 for each column that the log lacked values of.

    Args:
        columns: scale of each column.
        numbers: (M,) of each column, nan where missing.

    Returns:
        (M, columns + marks) float64; a mark is 1 where the number is missing.
    """
    standard = [column.standardise(values) for column, values in zip(columns, numbers, strict=True)]
    marks = [np.isnan(values).astype(float) for column, values in zip(columns, numbers, strict=True) if column.missing]
    return np.stack([*standard, *marks], axis=1)


def width(columns: Sequence[NumberColumn]) -> int:
    """Return the number of columns of :func:`state_columns`."""
    return len(columns) + sum(column.missing > 0 for column in columns)
