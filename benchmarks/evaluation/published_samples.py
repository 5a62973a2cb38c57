"""Readers of the small samples published with the method (arXiv 2512.24325): quotas, counts, scores, predictions.

Each sample has ten rows, so results computed from them say little.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from marca_env.logs.log_files import read_table
from marca_env.logs.schema import Column, check_table
from marca_env.utils.errors import InputError

STATE, ACTIONS = ("uv", "w", "g", "i"), ("a1", "a2", "a3", "a4", "a5")
OUTPUTS = (*(f"{action}_output" for action in ACTIONS), "q_re_output", "q_pre_output", "q_final_output")
"""Predictions of the published file: the value after each decision, of both agents, and of the team."""
PREDICTIONS = ("t", *STATE, *ACTIONS, *OUTPUTS, "consumption")


def read_action_quota(path: str | Path) -> pd.DataFrame:
    """Read ``action_quota.csv``: a1 … a5, ``an`` (times the joint action was taken) and ``num`` (equal in all rows)."""
    return _headerless(path, (*ACTIONS, "an", "num"))


def read_state_counts(path: str | Path) -> pd.DataFrame:
    """Read ``state_counts.csv``: uv, w, g, i (text), ``sn`` (requests of the state, as its code reads it), ``num``."""
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


def is_predictions(frame: pd.DataFrame) -> bool:
    """Return whether a table is the published file of predictions, whose "header" is its first row."""
    numbers = pd.to_numeric(pd.Series(map(str, frame.columns[len(STATE + ACTIONS) + 1 :])), errors="coerce")
    has_names = bool({"t", "consumption"} & set(frame.columns))
    return frame.shape[1] == len(PREDICTIONS) and not has_names and bool(numbers.notna().any())


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read ``predictions.tsv``: t (text), uv, w, g, i, a1 … a5, the outputs, and ``consumption``, what was earned."""
    numbers = tuple(Column(name, low=-np.inf) for name in (*OUTPUTS, "consumption"))
    return _headerless(path, PREDICTIONS, (Column("t", "text"), *_columns((*STATE, *ACTIONS)), *numbers))


def _columns(names: tuple[str, ...]) -> tuple[Column, ...]:
    return tuple(Column(name, "text" if name == "i" else "int") for name in names)


def _headerless(path: str | Path, names: tuple[str, ...], columns: tuple[Column, ...] = ()) -> pd.DataFrame:
    read_table(path)  # its errors name what is wrong with an unreadable file
    frame = pd.read_csv(path, header=None, sep="\t" if Path(path).suffix == ".tsv" else ",")
    if frame.shape[1] != len(names):
        raise InputError(f"{path}: {frame.shape[1]} columns and no header; use the columns {', '.join(names)}")
    return check_table(frame.set_axis(list(names), axis=1), columns or _columns(names), path)
