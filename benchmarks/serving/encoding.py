"""Encode requests of a live client, each with a fault of its own where it cannot be read.

A request is a mapping from names to values: raw columns if there is a feature coding, else the columns of a state. It
may hold more than the features; the rest is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from marca_env.integration.feature_coding import FeatureCoder, FeatureCoding
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, one_line, shown

FaultStatus = Literal["missing-feature", "unseen-value", "wrong-type"]
"""``missing-feature``: a column is absent; ``unseen-value``: a code out of range; ``wrong-type``: not an object, or a
value of another kind than the feature's."""
_LARGEST = 1e15
_MOST_CACHED = 100_000  # values of a column whose codes are kept


@dataclass(frozen=True)
class RequestFault:
    """Why a request cannot be encoded."""

    status: FaultStatus
    message: str


class RequestEncoder:
    """Encodes requests as states (B, W) of a scenario.

    Args:
        scenario: the recommender.
        coder: coding of raw features; ``None``: requests hold the codes and numbers of a state. Hidden features may be
            left out then.

    Raises:
        InputError: the coding has other features than the scenario.
    """

    def __init__(self, scenario: Scenario, coder: FeatureCoder | None = None) -> None:
        self.scenario = scenario
        self._parts: list[_Codes] | list[_Raw]
        if coder is None:
            self._parts = _code_parts(scenario)
            return
        coded = [(c.name, c.width if c.is_number else 1) for c in coder.codings]
        if coded != [(feature.name, len(feature.columns)) for feature in scenario.features]:
            raise InputError(
                f"the coding has the features {', '.join(name for name, _ in coded)} and the policy's scenario "
                f"{', '.join(scenario.feature_names)}; pass the features.json with which the policy was trained"
            )
        self._parts = [_Raw(coding) for coding in coder.codings]

    def encode(self, requests: Sequence[Any]) -> tuple[np.ndarray, list[RequestFault | None]]:
        """Return states and faults of requests.

        Args:
            requests: what a client sent; usually mappings.

        Returns:
            (B, W) int64, or float64 where features are numbers; zeros where there is a fault. A fault or ``None`` for
            each request.
        """
        faults: list[RequestFault | None] = [
            None if isinstance(r, Mapping) else RequestFault("wrong-type", f"the request is {shown(r)}; send an object")
            for r in requests
        ]
        is_categorical = self.scenario.is_categorical
        states = np.zeros((len(requests), len(self.scenario.state_columns)), np.int64 if is_categorical else np.float64)
        start = 0
        for part in self._parts:
            rows = [k for k, fault in enumerate(faults) if fault is None]
            if rows:
                encoded, found = part.encode([requests[k] for k in rows])
                states[rows, start : start + part.width] = encoded
                for k, fault in found.items():
                    faults[rows[k]] = fault
            start += part.width
        states[[k for k, fault in enumerate(faults) if fault is not None]] = 0
        return states, faults


def _code_parts(scenario: Scenario) -> list[_Codes]:
    parts = []
    for feature in scenario.features:
        size = feature.size if feature.kind == "category" else None
        parts += [_Codes(column, size, feature.hidden) for column in feature.columns]
    return parts


def _is_usable(number: float) -> bool:
    """Return whether a number is finite and small enough for a float."""
    return abs(number) <= _LARGEST  # False for NaN, and exact for integers of any length


class _Codes:
    """A column of a state, sent as it is: a code 0 … size − 1, or a finite number."""

    width = 1

    def __init__(self, column: str, size: int | None, optional: bool) -> None:
        self.column, self.size, self.optional = column, size, optional

    def encode(self, requests: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, dict[int, RequestFault]]:
        """Return the column (K, 1) and the faults by index."""
        values, faults = [], {}
        for k, request in enumerate(requests):
            value = self._checked(request)
            if isinstance(value, RequestFault):
                faults[k], value = value, 0
            values.append(value)
        return np.array(values).reshape(-1, 1), faults

    def _checked(self, request: Mapping[str, Any]) -> int | float | RequestFault:
        value = request.get(self.column)
        if value is None:
            if self.optional:
                return 0
            return RequestFault("missing-feature", f"{self.column!r} is missing; send it")
        if type(value) is int and self.size is not None:
            return self._in_range(value, self.size)
        if type(value) not in (int, float) or not _is_usable(value):
            kind = "a finite number" if self.size is None else "an integer"
            return RequestFault("wrong-type", f"{self.column!r} is {shown(value)}; send {kind}")
        if self.size is None:
            return float(value)
        if value != int(value):
            return RequestFault("wrong-type", f"{self.column!r} is {shown(value)}; send an integer")
        return self._in_range(int(value), self.size)

    def _in_range(self, code: int, size: int) -> int | RequestFault:
        if 0 <= code < size:
            return code
        return RequestFault("unseen-value", f"{self.column!r} is {shown(code)}; send 0 to {size - 1}")


class _Raw:
    """A feature that a coding makes of raw columns. The codes of values that came before are kept."""

    def __init__(self, coding: FeatureCoding) -> None:
        self._coder, self._meaning = FeatureCoder([coding]), coding.meaning
        self._is_code = coding.coding == "code"
        self._columns = [n.column for n in coding.numbers] if coding.is_number else [coding.column]
        self._cache: dict[tuple[type, Any], np.ndarray] | None = None if coding.is_number else {}
        self.width = coding.width if coding.is_number else 1

    def encode(self, requests: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, dict[int, RequestFault]]:
        """Return the columns (K, width) of the feature and the faults by index."""
        out, faults = np.zeros((len(requests), self.width)), {}
        new: list[int] = []
        for k, request in enumerate(requests):
            if (fault := self._shape_fault(request)) is not None:
                faults[k] = fault
            elif (known := self._known(request)) is not None:
                out[k] = known
            else:
                new.append(k)
        if new:
            for k, coded in zip(new, self._code([requests[k] for k in new]), strict=True):
                if isinstance(coded, RequestFault):
                    faults[k] = coded
                else:
                    out[k] = coded
                    self._keep(requests[k], coded)
        return out, faults

    def _shape_fault(self, request: Mapping[str, Any]) -> RequestFault | None:
        for column in self._columns:
            if column not in request:
                return RequestFault("missing-feature", f"{column!r} of {self._meaning} is missing; send it")
            value = request[column]
            if value is not None and not isinstance(value, (str, int, float)):
                return RequestFault("wrong-type", f"{column!r} is {shown(value)}; send a text, a number or null")
        return None

    def _known(self, request: Mapping[str, Any]) -> np.ndarray | None:
        if self._cache is None:
            return None
        value = request[self._columns[0]]
        return self._cache.get((type(value), value))

    def _keep(self, request: Mapping[str, Any], coded: np.ndarray) -> None:
        if self._cache is not None:
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            value = request[self._columns[0]]
            self._cache[type(value), value] = coded

    def _code(self, requests: Sequence[Mapping[str, Any]]) -> list[np.ndarray | RequestFault]:
        """Code the requests together; if that fails, one by one, so that only the bad ones have a fault."""
        rows = [{column: request[column] for column in self._columns} for request in requests]
        try:
            return list(self._coder.encode(rows, "request"))
        except Exception as error:  # pandas refuses in many ways, such as an integer of 400 digits
            if len(rows) > 1:
                return [self._code([row])[0] for row in rows]
            is_range = self._is_code and type(rows[0][self._columns[0]]) is int
            return [RequestFault("unseen-value" if is_range else "wrong-type", one_line(error, 300))]
