"""Schemas of the three logs (requests, costs, system): their columns, and the check of a table against them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, time, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

_NOT_NUMBERS = (bytes, complex, date, time, timedelta, np.datetime64, np.timedelta64)
OUTCOMES = ("impressions", "clicks", "revenue", "gmv")
LARGEST = 1e15
"""Largest size of a number: whole numbers up to it are exact in float64, and sums of many rows stay finite."""


@dataclass(frozen=True)
class Column:
    """Name, type and inclusive bounds of a column of a log."""

    name: str
    kind: str = "float"
    """``int``, ``float`` or ``text``."""
    low: float = 0.0
    high: float = np.inf
    meaning: str = ""
    """Meaning of the value, for messages."""
    optional: bool = False
    """Whether a table may lack the column, or leave values empty."""


def _log_columns(*specs: tuple[str, str, float, str]) -> tuple[Column, ...]:
    return tuple(Column(name, kind, high=high, meaning=meaning) for name, kind, high, meaning in specs)


COST_COLUMNS = _log_columns(
    ("stage", "text", np.inf, "stage"),
    ("cluster", "text", np.inf, "cluster"),
    (
        "component",
        "text",
        np.inf,
        "base, channel:<name>, queue, model:<decision>=<option>, degradation, request or joint_action",
    ),
    ("value_bucket", "int", np.inf, "bucket of request value"),
    ("queue_length", "float", np.inf, "candidates, or level of degradation"),
    ("qps", "float", np.inf, "requests per second"),
    ("utilisation", "float", np.inf, "fraction of the machines' cores"),
    ("machines", "int", np.inf, "service processes"),
    ("cores", "int", np.inf, "cores of each"),
    ("repeat", "int", np.inf, "number of the repetition"),
    ("cost", "float", np.inf, "core-seconds per request"),
)


LATENCY_COLUMNS = tuple(
    Column(name, meaning=f"{quantile} of the component's service time, seconds", optional=True)
    for name, quantile in (("latency_p50", "median"), ("latency_p99", "99 % quantile"))
)
"""Optional columns of a cost log. Rows of ``degradation``, ``request`` and ``joint_action`` hold that of the whole
workload."""
WHOLE_REQUESTS = ("request", "joint_action")
"""Components that check the cost map and are no part of it: mixed joint actions, and single ones (``queue_length`` is
the row of the joint action)."""


def feature_columns(scenario: Scenario) -> tuple[Column, ...]:
    """Return the columns of the features: codes 0 … size − 1, or standardised numbers."""
    columns: list[Column] = []
    for f in scenario.features:
        if f.kind == "category":
            columns.append(Column(f.name, "int", high=f.size - 1, meaning=f"code of feature {f.name!r}"))
        else:
            columns += [Column(name, low=-np.inf, meaning=f"number of feature {f.name!r}") for name in f.columns]
    return tuple(columns)


def state_table(scenario: Scenario, frame: pd.DataFrame) -> np.ndarray:
    """Return the states (rows, W) of a checked log: int64, or float64 where features are numbers."""
    number = np.int64 if scenario.is_categorical else np.float64
    return frame[list(scenario.state_columns)].to_numpy(number)


def decision_columns(scenario: Scenario) -> tuple[Column, ...]:
    """Return one column per decision, with option indices."""
    return tuple(
        Column(d.name, "int", high=len(d.options) - 1, meaning=f"option index of decision {d.name!r}")
        for d in scenario.decisions
    )


def result_columns(scenario: Scenario) -> tuple[Column, ...]:
    """Return one column per stage, with the candidates that it processed, and one per signal."""
    counts = [Column(f"result_{name}", meaning=f"candidates processed by {name}") for name in scenario.stage_names]
    names = scenario.result_columns[len(counts) :]
    return (*counts, *(Column(name, low=-np.inf, meaning="signal of a stage") for name in names))


def request_columns(scenario: Scenario) -> tuple[Column, ...]:
    """Return every column of a request log, in order."""
    outcomes = tuple(Column(name, meaning=f"sampled {name} of the request") for name in OUTCOMES)
    return feature_columns(scenario) + decision_columns(scenario) + result_columns(scenario) + outcomes


def system_columns(clusters: Iterable[str]) -> tuple[Column, ...]:
    """Return every column of a system log; loads in core-seconds per second, prices in currency per core-second."""
    per_cluster = [
        column
        for name in clusters
        for column in (
            Column(f"load_{name}", meaning="core-seconds per second, undegraded"),
            Column(f"price_{name}", meaning="currency per core-second"),
            Column(f"degradation_{name}", "int", meaning="level of degradation"),
            Column(f"backlog_{name}", meaning="seconds of all the cluster's cores"),
        )
    ]
    head = (Column("day", "int"), Column("minute", "int", high=1439, meaning="minute of the day"), Column("qps"))
    return (*head, *per_cluster, Column("revenue"))


def check_table(
    frame: pd.DataFrame, columns: Iterable[Column], where: str | Path, *, first_row: int = 0
) -> pd.DataFrame:
    """Convert and check some columns of ``frame``; other columns stay as they are.

    Args:
        frame: the table.
        columns: columns to check.
        where: source of the table, for messages.
        first_row: rows of the file that come before ``frame``, for messages.

    Raises:
        InputError: no rows, a missing or repeated column, or a value that is empty, not a number, not an integer or
            out of range.
    """
    columns = tuple(columns)
    columns = tuple(c for c in columns if not c.optional or c.name in frame.columns)
    for column in columns:
        if column.name not in frame.columns:
            names = ", ".join(c.name for c in columns if not c.optional)
            raise InputError(f"{where}: column {column.name!r} is missing; a log of this kind has the columns {names}")
        if frame.columns.tolist().count(column.name) > 1:
            raise InputError(f"{where}: column {column.name!r} appears twice; remove one")
    if len(frame) == 0:
        raise InputError(f"{where}: no rows below the header; write the log again")
    checked = frame.reset_index(drop=True).copy()
    for column in columns:
        raw = checked[column.name]
        empty = raw.isna().to_numpy()
        if not column.optional:
            _refuse(where, column, raw, first_row, empty, "is empty; fill the value in or remove the row")
        if column.kind == "text":
            checked[column.name] = raw.astype(str)
            continue
        _refuse(where, column, raw, first_row, _other_types(raw), "is not a number; write a plain number")
        numbers = pd.to_numeric(raw, errors="coerce").to_numpy(float, na_value=np.nan)
        absent = empty if column.optional else np.zeros(len(raw), dtype=bool)
        _refuse(where, column, raw, first_row, ~np.isfinite(numbers) & ~absent, "is not a finite number; correct it")
        _refuse(where, column, raw, first_row, numbers < column.low, _below(column))
        _refuse(where, column, raw, first_row, numbers > column.high, _above(column))
        _refuse(where, column, raw, first_row, np.abs(numbers) > LARGEST, f"is larger than {LARGEST:g}; correct it")
        if column.kind == "int":
            _refuse(where, column, raw, first_row, numbers % 1 != 0, "must be a whole number; correct it")
            numbers = numbers.astype(np.int64)
        checked[column.name] = numbers
    return checked


def _other_types(raw: pd.Series) -> np.ndarray:
    """Return which values are of a type that converts to a number without being one: dates, durations, bytes."""
    if raw.dtype.kind in "mMc":
        return np.ones(len(raw), dtype=bool)
    if raw.dtype != object:
        return np.zeros(len(raw), dtype=bool)
    return np.array([isinstance(value, _NOT_NUMBERS) for value in raw], dtype=bool)


def _below(column: Column) -> str:
    return f"is below {column.low:g}; correct it or remove the row"


def _above(column: Column) -> str:
    return f"is out of range {column.low:g} … {column.high:g}; correct it, or use the scenario of this log"


def _refuse(where: str | Path, column: Column, raw: pd.Series, first_row: int, bad: np.ndarray, problem: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        meaning = f" ({column.meaning})" if column.meaning else ""
        more = f" [{int(bad.sum())} rows in all]" if bad.sum() > 1 else ""
        at = f"row {first_row + row + 1}, column {column.name!r}{meaning}"
        value = raw.iloc[row]
        shown = value.item() if isinstance(value, np.generic) else value
        raise InputError(f"{where}: {at}: {shown!r} {problem}{more}")
