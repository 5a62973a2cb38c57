"""Recorded outcomes: what each of M requests earns, costs and shows under each joint action, in full.

Some systems can be recorded completely, for example questions that every language model has answered. Their
environments serve the records instead of predictions. A request is a row of the records, by a hidden feature
``request``: learners observe the other features, never the row. Shapes: B batch, J joint actions, D decisions,
S stages, N signals, R = S + N results, G clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marca_env.logs.log_files import read_table, write_table
from marca_env.logs.schema import Column, check_table, decision_columns, result_columns
from marca_env.scenario.scenario import Scenario
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError
from marca_env.utils.packed_arrays import PackedArray

FILE = "outcomes.parquet"
REQUEST = "request"
"""Hidden feature whose code is the row of a request."""


@dataclass(frozen=True)
class RecordedOutcomes:
    """Outcome of every joint action of every recorded request.

    Raises:
        InputError: the scenario has no hidden category ``request``, or the table does not fit it.
    """

    scenario: Scenario
    table: np.ndarray
    """(M, J, R+G+1) float32: results, core-seconds (or the cluster's own unit), revenue in currency."""

    def __post_init__(self) -> None:
        feature = next((f for f in self.scenario.features if f.name == REQUEST), None)
        if feature is None or not feature.hidden or feature.kind != "category":
            raise InputError(
                f"scenario {self.scenario.name!r}: records need a hidden category {REQUEST!r}, the row of a request; "
                "add it to the features"
            )
        width = len(self.scenario.result_columns) + len(self.scenario.clusters) + 1
        shape = (feature.size, self.scenario.n_joint_actions, width)
        if self.table.shape != shape:
            raise InputError(f"records have shape {self.table.shape}; scenario {self.scenario.name!r} needs {shape}")

    def __reduce__(self) -> tuple[Callable[..., RecordedOutcomes], tuple[Any, ...]]:
        """Pickle the table packed: it takes megabytes, and its columns repeat few values."""
        return _unpacked, (self.scenario, PackedArray.pack(self.table))

    @cached_property
    def distinct(self) -> np.ndarray:
        """Joint actions with columns of their own: all of them, (J,)."""
        return np.arange(self.scenario.n_joint_actions)

    @property
    def distinct_of(self) -> np.ndarray:
        """Column of each joint action, (J,)."""
        return self.distinct

    def look_up(self, states: np.ndarray, joint: np.ndarray) -> np.ndarray:
        """Return what was recorded, (B, R+G+1) float32, for states (B,W) and indices of joint actions (B,)."""
        row = np.asarray(states)[:, self.scenario.state_columns.index(REQUEST)].astype(np.int64)
        return self.table[row, joint]

    @classmethod
    @checked_arguments
    def from_table(
        cls, frame: pd.DataFrame, scenario: Scenario | str | Path, where: str | Path = "outcomes"
    ) -> RecordedOutcomes:
        """Read records from a table with a row for every request and joint action.

        Args:
            frame: columns ``request`` (0 … M − 1), the decisions (option indices), ``result_<stage>``,
                ``signal_<stage>_<name>``, ``cost_<cluster>`` and ``revenue``; rows in any order.
            scenario: the system.
            where: source of the table, for messages.

        Raises:
            InputError: a fault of the table, or a pair of request and joint action that is missing or repeated.
        """
        scenario = Scenario.load(scenario)
        frame = check_table(frame, _columns(scenario), where)
        rows = frame[REQUEST].to_numpy(np.int64)
        joint = scenario.joint_index(frame[list(scenario.decision_names)].to_numpy(np.int64))
        n_rows, n_joint = int(rows.max()) + 1, scenario.n_joint_actions
        count = np.bincount(rows * n_joint + joint, minlength=n_rows * n_joint)
        if (count != 1).any():
            row, action = divmod(int(np.argmax(count != 1)), n_joint)
            options = scenario.named_options(scenario.joint_actions[action][None])[0]
            raise InputError(
                f"{where}: request {row} with {options} occurs {count[row * n_joint + action]} times; give every joint "
                "action of every request once"
            )
        values = frame[_value_names(scenario)].to_numpy(np.float32)
        table = np.empty((n_rows, n_joint, values.shape[1]), dtype=np.float32)
        table[rows, joint] = values
        return cls(scenario, table)

    @classmethod
    @checked_arguments
    def load(cls, path: str | Path, scenario: Scenario | str | Path) -> RecordedOutcomes:
        """Read the file that :meth:`save` wrote.

        Raises:
            InputError: the file is missing, damaged, or belongs to another scenario.
        """
        return cls.from_table(read_table(path), scenario, path)

    @checked_arguments
    def save(self, path: str | Path) -> None:
        """Write a table with a row for every request and joint action; the suffix selects CSV or Parquet."""
        scenario, n_rows = self.scenario, len(self.table)
        codes = np.tile(scenario.joint_actions, (n_rows, 1))
        keys = {REQUEST: np.repeat(np.arange(n_rows), scenario.n_joint_actions)}
        keys |= {name: codes[:, d] for d, name in enumerate(scenario.decision_names)}
        flat = self.table.reshape(-1, self.table.shape[-1])
        values = {name: flat[:, k] for k, name in enumerate(_value_names(scenario))}
        write_table(pd.DataFrame(keys | values), path)


def _unpacked(scenario: Scenario, table: PackedArray) -> RecordedOutcomes:
    """Return the records of a pickle."""
    return RecordedOutcomes(scenario, table.unpack())


def _value_names(scenario: Scenario) -> list[str]:
    """Return the names of the R+G+1 values of a row."""
    return [*scenario.result_columns, *(f"cost_{name}" for name in scenario.cluster_names), "revenue"]


def _columns(scenario: Scenario) -> tuple[Column, ...]:
    """Return every column of the table."""
    costs = (Column(f"cost_{name}", meaning=f"cost on cluster {name!r}") for name in scenario.cluster_names)
    request = Column(REQUEST, "int", meaning="row of the request")
    return (request, *decision_columns(scenario), *result_columns(scenario), *costs, Column("revenue"))
