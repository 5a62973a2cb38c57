"""Readers of the small samples published with the method (arXiv 2512.24325): quotas, state counts, scores.

Each sample has ten rows, so results computed from them say little.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.evaluation.metrics import return_percent
from benchmarks.evaluation.quota_allocation import quota_allocation
from marca_env.logs.log_files import read_table
from marca_env.logs.schema import Column, check_table
from marca_env.utils.errors import InputError

STATE, ACTIONS = ("uv", "w", "g", "i"), ("a1", "a2", "a3", "a4", "a5")


def read_action_quota(path: str | Path) -> pd.DataFrame:
    """Read ``action_quota.csv``: a1 … a5, ``an`` (times the joint action was taken) and ``num`` (equal in all rows)."""
    return _headerless(path, (*ACTIONS, "an", "num"))


def read_state_counts(path: str | Path) -> pd.DataFrame:
    """Read ``state_counts.csv``: uv, w, g, i (text), ``sn`` and ``num`` (requests of the state)."""
    return _headerless(path, (*STATE, "sn", "num"))


def read_keyed(path: str | Path) -> pd.DataFrame:
    """Read ``expert_scores.csv`` or ``allocation_*.csv``: uv, w, g, i (text), a1 … a5 and the ``value`` of each pair.

    Raises:
        InputError: a file of another shape, or a key that does not name a state and five decisions.
    """
    frame = check_table(read_table(path), (Column("key", "text"), Column("value")), path)
    rows = []
    for number, key in enumerate(frame["key"], start=1):
        parts = str(key).split("_")
        if len(parts) < len(STATE + ACTIONS):
            raise InputError(
                f"{path}: row {number}, column 'key': {key!r} is malformed; use the form {'_'.join(STATE + ACTIONS)}"
            )
        centre = "_".join(parts[3 : -len(ACTIONS)])  # the name of the data centre, IDC_0, has an underscore
        rows.append([*parts[:3], centre, *parts[-len(ACTIONS) :]])
    table = pd.DataFrame(rows, columns=[*STATE, *ACTIONS]).assign(value=frame["value"])
    return check_table(table, _columns((*STATE, *ACTIONS)), path)


def sample_returns(folder: str | Path) -> dict[str, float]:
    """Return the Return% of each ``allocation_*.csv`` in the folder, with ``expert_scores.csv`` as the ground truth.

    The reference is the greedy allocation by the scores themselves. It has ``num`` requests of each state of
    ``state_counts.csv``, actions as often as ``action_quota.csv`` says, and only pairs with a score.
    """
    folder = Path(folder)
    scores = read_keyed(folder / "expert_scores.csv")
    quota, counts = read_action_quota(folder / "action_quota.csv"), read_state_counts(folder / "state_counts.csv")
    states = pd.MultiIndex.from_frame(counts[list(STATE)].astype(str))
    actions = pd.MultiIndex.from_frame(quota[list(ACTIONS)])
    values = np.full((len(states), len(actions)), -np.inf)
    at = states.get_indexer(pd.MultiIndex.from_frame(scores[list(STATE)].astype(str)))
    to = actions.get_indexer(pd.MultiIndex.from_frame(scores[list(ACTIONS)]))
    listed = (at >= 0) & (to >= 0)
    values[at[listed], to[listed]] = scores["value"].to_numpy()[listed]
    values = np.repeat(values, counts["num"], axis=0)
    chosen = quota_allocation(values, quota["an"].to_numpy())
    best = values[np.arange(len(values)), chosen][chosen >= 0]
    names = [*STATE, *ACTIONS]
    returns = {}
    for path in sorted(folder.glob("allocation_*.csv")):
        allocated = read_keyed(path).merge(scores, on=names, suffixes=("", "_score"))
        earned = allocated["value"].to_numpy() * allocated["value_score"].to_numpy()
        returns[path.stem.removeprefix("allocation_")] = return_percent(earned, best)
    return returns


def _columns(names: tuple[str, ...]) -> tuple[Column, ...]:
    return tuple(Column(name, "text" if name == "i" else "int") for name in names)


def _headerless(path: str | Path, names: tuple[str, ...]) -> pd.DataFrame:
    read_table(path)  # its errors name what is wrong with an unreadable file
    frame = pd.read_csv(path, header=None)
    if frame.shape[1] != len(names):
        raise InputError(f"{path}: {frame.shape[1]} columns and no header; use the columns {', '.join(names)}")
    return check_table(frame.set_axis(list(names), axis=1), _columns(names), path)
