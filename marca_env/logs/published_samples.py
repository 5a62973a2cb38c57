"""Conversion of the small samples published with the method (arXiv 2512.24325) to our logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from marca_env.logs.schema import Column, decision_columns, feature_columns
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

STATE = ("uv", "w", "g", "i")
ACTIONS = ("a1", "a2", "a3", "a4", "a5")
RESULTS = ("result_1", "result_2")
N_REQUEST, N_COST = len(STATE + ACTIONS) + 1, len(STATE + ACTIONS) + len(RESULTS)


def is_headerless(frame: pd.DataFrame) -> bool:
    """Return whether the "header" is a row of numbers of a request or cost sample."""
    if len(frame.columns) not in (N_REQUEST, N_COST):
        return False
    try:
        # pandas renames a repeated "0" to "0.1", which is still a number.
        return bool(np.isfinite([float(name.split(".")[0]) for name in map(str, frame.columns)]).all())
    except ValueError:
        return False


def _read(path: str | Path, *layouts: tuple[str, ...]) -> pd.DataFrame:
    frame = pd.read_csv(path, header=None, sep="\t" if Path(path).suffix == ".tsv" else ",")
    for names in layouts:
        if len(names) == frame.shape[1]:
            return frame.set_axis(list(names), axis=1)
    expected = " or ".join(", ".join(names) for names in layouts)
    raise InputError(f"{path}: {frame.shape[1]} columns and no header; without one the columns must be {expected}")


def read_requests(path: str | Path) -> pd.DataFrame:
    """Read a log of requests without a header: state, actions, and either revenue or action results, as they are.

    Raises:
        InputError: another number of columns.
    """
    return _read(path, (*STATE, *ACTIONS, "revenue"), (*STATE, *ACTIONS, *RESULTS))


def request_sample(path: str | Path, scenario: Scenario) -> tuple[pd.DataFrame, tuple[Column, ...]]:
    """Return table and schema of a log without a header whose ids are the codes of a scenario.

    Raises:
        InputError: a feature that the log lacks, or an id that is not one of its codes: such a log needs a scenario of
            its own.
    """
    frame = read_requests(path)
    if len(scenario.decisions) != len(ACTIONS):
        raise InputError(
            f"{path}: five decisions and no header, but scenario {scenario.name!r} has {len(scenario.decisions)}; "
            "use a scenario of the published shape, such as 'default'"
        )
    frame = frame.rename(columns=dict(zip(ACTIONS, scenario.decision_names, strict=True)))
    for feature in scenario.features:
        remedy = (
            f"make a scenario of this log with `marca fit --requests {path} --system FILE --out DIR`, then pass "
            "--scenario DIR"
        )
        if feature.name not in STATE:
            raise InputError(
                f"{path}: no column for feature {feature.name!r} of scenario {scenario.name!r} (a log without a header "
                f"has {', '.join(STATE)}); {remedy}"
            )
        ids = pd.to_numeric(frame[feature.name], errors="coerce").to_numpy(dtype=np.float64)
        wrong = ~((ids >= 0) & (ids < feature.size) & (ids % 1 == 0))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(
                f"{path}: row {row + 1}: id {frame[feature.name].iloc[row]} is not a code of feature {feature.name!r} "
                f"of scenario {scenario.name!r} (0 to {feature.size - 1}); {remedy}"
            )
        frame[feature.name] = ids.astype(np.int64)
    outcome = tuple(Column(name) for name in ("revenue", *RESULTS) if name in frame.columns)
    return frame, feature_columns(scenario) + decision_columns(scenario) + outcome


def cost_sample(path: str | Path) -> tuple[pd.DataFrame, tuple[Column, ...]]:
    """Read the sample of action results that the paper's authors published; return the table and its columns."""
    names = (*STATE, *ACTIONS, *RESULTS)
    return _read(path, names), tuple(Column(name, "int") for name in names)


def is_system_sample(frame: pd.DataFrame) -> bool:
    """Return whether the columns are those of the published system log."""
    return {"tm", "cpu1", "cpu2", "lambda_value1", "cpu1_"} <= set(frame.columns)


def system_sample(
    frame: pd.DataFrame, path: str | Path, clusters: Sequence[str] = ("retrieval", "ranking")
) -> pd.DataFrame:
    """Convert each published transition to two rows of our system log, one control period apart, as a separate day.

    Loads are the published CPU readings and prices are in the published units of revenue; both stay as they are. Noise
    was added before publication; values below zero are read as zero.

    Args:
        frame: the published table.
        path: for messages.
        clusters: names of the two clusters, in the order of the columns.
    """
    needed = ("tm", "nsum", "cpu1", "cpu2", "lambda_value1", "lambda_value2", "cpu1_", "cpu2_", "Q_sum", "Q_sum_")
    for name in needed:
        if name not in frame.columns:
            raise InputError(f"{path}: column {name!r} is missing; the published system log has {', '.join(needed)}")
    rows = []
    for later, mark in ((0, ""), (1, "_")):
        half = pd.DataFrame(
            {"day": range(len(frame)), "minute": frame["tm"] + later, "qps": frame["nsum"].clip(lower=0)}
        )
        for k, cluster in enumerate(clusters, start=1):
            half[f"load_{cluster}"] = frame[f"cpu{k}{mark}"].clip(lower=0)
            half[f"price_{cluster}"] = frame[f"lambda_value{k}"]
            half[f"degradation_{cluster}"] = 0
            half[f"backlog_{cluster}"] = 0.0
        half["revenue"] = frame[f"Q_sum{mark}"]
        rows.append(half)
    both = pd.concat(rows).sort_values(["day", "minute"], kind="stable")
    return both.assign(minute=both["minute"] % 1440).reset_index(drop=True)
