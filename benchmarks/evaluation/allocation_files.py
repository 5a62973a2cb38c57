"""Allocation of the actions in a user's files: values of (state, action) pairs, quotas of actions, counts of states.

Each file is a table with a header, CSV or Parquet, or one of the samples published with the method (arXiv 2512.24325;
:mod:`benchmarks.evaluation.published_samples`). The columns of a state are those of the counts without the number of
requests, the columns of an action those of the quotas without the quota; the table of values has them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.evaluation import published_samples
from benchmarks.evaluation.metrics import return_percent
from benchmarks.evaluation.quota_allocation import counted_allocation
from marca_env.logs.log_files import read_table
from marca_env.logs.schema import Column, check_table
from marca_env.utils.errors import InputError

VALUE, QUOTA, REQUESTS = "value", "quota", "requests"
MOST_NAMED = 12
"""Most columns that a message names."""


@dataclass(frozen=True)
class AllocationTask:
    """Values, quotas and counts that belong together; S states, J actions."""

    states: pd.MultiIndex
    """(S,) names and texts of the states' columns."""
    actions: pd.MultiIndex
    """(J,) names and texts of the actions' columns."""
    values: np.ndarray
    """(S, J) value per request; −inf where the table of values has no such pair."""
    quotas: np.ndarray
    """(J,) int64, how often each action may be taken."""
    counts: np.ndarray
    """(S,) int64, requests of each state."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns of state and action."""
        return [str(name) for index in (self.states, self.actions) for name in index.names]

    @cached_property
    def allocation(self) -> pd.DataFrame:
        """The greedy allocation: columns of state and action, ``value`` per request, and ``requests``."""
        states, actions, numbers = counted_allocation(self.values, self.counts, self.quotas)
        keys = [self.states.take(states).to_frame(index=False), self.actions.take(actions).to_frame(index=False)]
        return pd.concat(keys, axis=1).assign(**{VALUE: self.values[states, actions], REQUESTS: numbers})

    def earned(self, allocation: pd.DataFrame) -> np.ndarray:
        """Return what each row of an allocation earns by this task's values; a pair without a value earns nothing.

        Args:
            allocation: columns of state and action, and ``requests``.
        """
        at, to = _places(self.states, allocation), _places(self.actions, allocation)
        value = np.where((at >= 0) & (to >= 0), self.values[at, to], 0.0)
        return np.where(np.isfinite(value), value, 0.0) * allocation[REQUESTS].to_numpy()

    def return_percent(self, allocation: pd.DataFrame) -> float:
        """Return the Return% of an allocation (Eq. 20), with the greedy allocation as the reference."""
        return return_percent(self.earned(allocation), self.earned(self.allocation))


def read_task(
    values: str | Path, quotas: str | Path, counts: str | Path, *, requests_column: str | None = None
) -> AllocationTask:
    """Read the three files of an allocation.

    Args:
        values: columns of state and action, and ``value``; or the published ``expert_scores.csv``.
        quotas: columns of the action, and ``quota``; or the published ``action_quota.csv``.
        counts: columns of the state, and ``requests``; or the published ``state_counts.csv``.
        requests_column: column with the number of requests; ``None``: ``requests``, or ``sn`` in the published file,
            as in its reference code.

    Raises:
        InputError: a file that cannot be read, a missing column, a repeated row, or files that share no pair.
    """
    actions, action_quotas = _read_numbers(quotas, QUOTA, published_samples.read_action_quota, ("an", "num"), "an")
    states, state_counts = _read_numbers(
        counts, requests_column or REQUESTS, published_samples.read_state_counts, ("sn", "num"), requests_column or "sn"
    )
    names = [str(name) for index in (states, actions) for name in index.names]
    if len(set(names)) < len(names):
        shared = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{counts} and {quotas} both have the column {shared!r}; rename it in one of them")
    pairs = read_pairs(values, names, VALUE)
    at, to = _places(states, pairs), _places(actions, pairs)
    listed = (at >= 0) & (to >= 0)
    if not listed.any():
        raise InputError(
            f"{values}: no row has both a state of {counts} and an action of {quotas}; use files of one system"
        )
    table = np.full((len(states), len(actions)), -np.inf)
    table[at[listed], to[listed]] = pairs[VALUE].to_numpy()[listed]
    return AllocationTask(states, actions, table, action_quotas, state_counts)


def sample_returns(folder: str | Path) -> dict[str, float]:
    """Return the Return% of each published ``allocation_*.csv`` in a folder, with ``expert_scores.csv`` as the truth.

    Each sample has ten rows, so the results say little.
    """
    folder = Path(folder)
    task = read_task(folder / "expert_scores.csv", folder / "action_quota.csv", folder / "state_counts.csv")
    return {
        path.stem.removeprefix("allocation_"): task.return_percent(read_pairs(path, task.columns, REQUESTS))
        for path in sorted(folder.glob("allocation_*.csv"))
    }


def read_pairs(path: str | Path, keys: Sequence[str], number: str) -> pd.DataFrame:
    """Read a table of (state, action) pairs, or the published form with a ``key`` and a ``value``.

    Args:
        path: the file.
        keys: columns of state and action.
        number: name of the column with the number of each pair.

    Returns:
        The columns ``keys`` as text, and ``number``.

    Raises:
        InputError: a file that cannot be read, a missing column, or a repeated pair.
    """
    frame = read_table(path)
    if {"key", "value"} <= set(frame.columns):
        frame = published_samples.read_keyed(path).rename(columns={"value": number})
    frame = check_table(_as_text(frame, keys), [*_text_columns(keys), Column(number, low=-np.inf)], path)
    _refuse_repeated(frame, keys, path)
    return frame[[*keys, number]]


def _read_numbers(
    path: str | Path,
    name: str,
    read_published: Callable[[str | Path], pd.DataFrame],
    published_numbers: tuple[str, ...],
    published_name: str,
) -> tuple[pd.MultiIndex, np.ndarray]:
    """Return the keys of a file's rows and the whole number in each."""
    frame = read_table(path)
    if _is_headerless(frame):
        frame, name = read_published(path), published_name
        keys = [column for column in frame.columns if column not in published_numbers]
    else:
        if name not in frame.columns:
            found = ", ".join(map(str, frame.columns[:MOST_NAMED]))
            raise InputError(
                f"{path}: column {name!r} is missing (columns: {found}); name the column with the numbers so"
            )
        keys = [str(column) for column in frame.columns if column != name]
    frame = check_table(_as_text(frame, keys), [*_text_columns(keys), Column(name, "int")], path)
    if not keys:
        raise InputError(f"{path}: only the column {name!r}; add the columns that it belongs to")
    _refuse_repeated(frame, keys, path)
    return pd.MultiIndex.from_frame(frame[keys]), frame[name].to_numpy()


def _is_headerless(frame: pd.DataFrame) -> bool:
    """Return whether the "header" holds numbers; pandas renames a repeated "0" to "0.1", which is still one."""
    first, last = str(frame.columns[0]), str(frame.columns[-1])
    return all(name.replace(".", "", 1).isdigit() for name in (first, last))


def _as_text(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return a copy with some columns as text; whole numbers are written without a point."""
    frame = frame.copy()
    for name in columns:
        if name in frame.columns and pd.api.types.is_float_dtype(frame[name]) and (frame[name] % 1 == 0).all():
            frame[name] = frame[name].astype(np.int64)
    return frame


def _text_columns(names: Sequence[str]) -> list[Column]:
    return [Column(name, "text") for name in names]


def _refuse_repeated(frame: pd.DataFrame, keys: Sequence[str], path: str | Path) -> None:
    repeated = frame.duplicated(list(keys)).to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        pair = ", ".join(f"{name} {frame[name].iloc[row]}" for name in keys)
        raise InputError(f"{path}: row {row + 1}: {pair} appears twice; keep one row of each")


def _places(index: pd.MultiIndex, table: pd.DataFrame) -> np.ndarray:
    """Return the position of each row's key in an index, −1 where it has none."""
    return index.get_indexer(pd.MultiIndex.from_frame(table[list(index.names)]))
