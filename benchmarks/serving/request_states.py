"""States of tables of requests, raw or coded, with a status for each row instead of an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from marca_env.integration.feature_coding import FeatureCoder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, RowsError

OK = "ok"
MISSING, UNSEEN, WRONG_TYPE = "missing-feature", "unseen-value", "wrong-type"
"""Status of a request whose value is null, a code out of range, or of another kind than the feature's."""
_LARGEST = 1e15


@dataclass(frozen=True)
class ReadRequests:
    """States of the valid requests of a table, and what is wrong with the others."""

    states: np.ndarray
    """(V, W) states of the valid rows."""
    status: np.ndarray
    """(B,) status of every row, text."""
    column: np.ndarray
    """(B,) column with the invalid value, ``None`` where the row is valid."""


class RequestStates:
    """Reader of the states of requests.

    Args:
        scenario: the recommender of the policy.
        coder: coding of raw features; ``None``: the columns are the scenario's, and hold codes or standardised numbers.

    Attributes:
        columns: columns that a table of requests needs.

    Raises:
        InputError: the coder is that of another scenario.
    """

    def __init__(self, scenario: Scenario, coder: FeatureCoder | None = None) -> None:
        self.scenario, self.coder = scenario, coder
        if coder is None:
            names = [scenario.state_columns[k] for k in scenario.observable_columns]
            self._code_columns = {scenario.state_columns[k] for k in scenario.category_columns}
        else:
            _check_coder(coder, scenario)
            names = [name for coding in coder.codings for name in coding.columns]
            self._code_columns = {coding.column for coding in coder.codings if coding.coding == "code"}
        self.columns = tuple(dict.fromkeys(names))

    @classmethod
    def load(cls, scenario: Scenario, features: str | Path | None) -> RequestStates:
        """Load the reader of a coding's file or folder; ``None``: requests hold codes."""
        return cls(scenario, None if features is None else FeatureCoder.load(features))

    def read(self, frame: pd.DataFrame) -> ReadRequests:
        """Return the states and statuses of a table of B requests; :attr:`columns` are among its columns."""
        status, column = np.full(len(frame), OK, dtype=object), np.full(len(frame), None, dtype=object)
        rows = np.arange(len(frame))
        while True:  # each pass finds all invalid rows of a column
            part = frame if len(rows) == len(frame) else frame.iloc[rows]
            try:
                states = self._code(part) if self.coder is None else self.coder.encode(part)
                return ReadRequests(states, status, column)
            except RowsError as error:
                bad = rows[error.rows]
                status[bad], column[bad] = self._reasons(frame[error.column].iloc[bad], error.column), error.column
                rows = rows[~error.rows]

    def _code(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the observable columns (B, V) of the states of coded requests.

        Raises:
            RowsError: a value is missing, not a number, or a code out of range.
        """
        scenario, columns = self.scenario, []
        features = [feature for feature in scenario.features if not feature.hidden for _ in feature.columns]
        for name, feature in zip(self.columns, features, strict=True):
            numbers = _plain_numbers(frame[name])
            bad = ~(np.abs(numbers) <= _LARGEST)
            if feature.kind == "category":
                bad |= ~((numbers >= 0) & (numbers < feature.size) & (numbers % 1 == 0))
            if bad.any():
                raise RowsError(f"column {name!r} has values that are not valid codes or numbers", name, bad)
            columns.append(numbers)
        return np.column_stack(columns).astype(np.int64 if scenario.is_categorical else np.float64)

    def _reasons(self, values: pd.Series, column: str) -> np.ndarray:
        """Return the status of each invalid value of a column."""
        holds_codes = column in self._code_columns
        numbers = _plain_numbers(values)
        is_unseen = holds_codes & (np.abs(numbers) <= _LARGEST) & (numbers % 1 == 0)
        return np.where(values.isna(), MISSING, np.where(is_unseen, UNSEEN, WRONG_TYPE))


def _plain_numbers(values: pd.Series) -> np.ndarray:
    """Return a column as float64 (B,), nan where a value is missing or no number; a text of digits is no number."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return values.to_numpy(np.float64, na_value=np.nan)
    if values.dtype != object:
        return np.full(len(values), np.nan)
    is_number = np.array([isinstance(v, (int, float)) and not isinstance(v, bool) for v in values], dtype=bool)
    return pd.to_numeric(values.where(is_number), errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _check_coder(coder: FeatureCoder, scenario: Scenario) -> None:
    coded = {c.name: c.width for c in coder.codings}
    needed = {f.name: f.size for f in scenario.features}
    if list(coded.items()) != list(needed.items()):
        raise InputError(
            f"the coding of features has {_listed(coded)}, but scenario {scenario.name!r} has {_listed(needed)}; give "
            "the features.json that `marca fit` wrote for the scenario of the policy"
        )


def _listed(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} ({size})" for name, size in sizes.items())
