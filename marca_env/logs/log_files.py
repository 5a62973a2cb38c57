"""Read and write the three logs (requests, costs, system) as checked tables.

The suffix decides the format: CSV (``.csv``, ``.tsv``) or Parquet (``.parquet``). A reader returns a checked DataFrame
or raises one :class:`~marca_env.utils.errors.InputError` that names the file, the row, the column and the remedy.
It also reads the samples published with the method, whose CSV files have no header
(:mod:`marca_env.logs.published_samples`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marca_env.logs import published_samples
from marca_env.logs.schema import COST_COLUMNS, LATENCY_COLUMNS, check_table, request_columns, system_columns
from marca_env.logs.text_files import csv_layout
from marca_env.scenario.scenario import Scenario
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, one_line, unknown_option
from marca_env.utils.files import atomic_path

SUFFIXES = (".csv", ".tsv", ".parquet")
_LONGEST_REASON = 200  # characters of another library's message


# -- reading ---------------------------------------------------------------------------------------------------
@checked_arguments
def read_table(path: str | Path, suffix: str | None = None) -> pd.DataFrame:
    """Read a CSV or Parquet file without checking its columns.

    Args:
        path: the file.
        suffix: its format, one of :data:`SUFFIXES`; ``None``: by its name.

    Raises:
        InputError: no such file, an unknown suffix, an empty file, or one that cannot be parsed.
    """
    path = Path(path)
    suffix = suffix or path.suffix
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: {unknown_option('kind of file', suffix, SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; write the log again")
    if suffix == ".parquet":
        return _read_parquet(path)
    try:
        layout: dict[str, Any] = csv_layout(path, "\t" if suffix == ".tsv" else ",")
        frame = pd.read_csv(path, skip_blank_lines=True, **layout)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise unreadable(path, error) from None
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes surplus fields as an index
        raise InputError(f"{path}: its rows have more fields than its header; name every column, or drop the surplus")
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file.

    Raises:
        InputError: the file is damaged. Its metadata steer the reader, so any error may come of that.
    """
    try:
        return pd.read_parquet(path)
    except Exception as error:
        raise unreadable(path, error) from None


def unreadable(place: object, error: BaseException) -> InputError:
    """Return the error to raise for a file that cannot be parsed."""
    reason = one_line(error)[:_LONGEST_REASON] or type(error).__name__
    return InputError(f"{place}: cannot be read ({reason}); it may be cut short: write the log again")


@checked_arguments
def read_request_log(path: str | Path, scenario: Scenario | str | Path = "default") -> pd.DataFrame:
    """Read a request log: features, decisions (option indices), ``result_<stage>``, impressions, clicks, revenue, gmv.

    It recognises logs in the published layout, which have no header (state, five actions, then a revenue or two action
    results): their ids must be the scenario's codes, and the outcomes that they lack are left out.

    Raises:
        InputError: any fault of the file; the message names the place and the remedy.
    """
    scenario = Scenario.load(scenario)
    frame = read_table(path)
    if published_samples.is_headerless(frame):
        return check_table(*published_samples.request_sample(path, scenario), path)
    return check_table(frame, request_columns(scenario), path)


@checked_arguments
def read_cost_log(path: str | Path) -> pd.DataFrame:
    """Read the TestBench's cost log (columns: ``COST_COLUMNS`` and, if measured, ``LATENCY_COLUMNS``).

    It recognises the published sample, which holds action results instead of costs and is returned with the columns
    uv, w, g, i, a1 … a5, result_1, result_2.

    Raises:
        InputError: any fault of the file; the message names the place and the remedy.
    """
    frame = read_table(path)
    if published_samples.is_headerless(frame):
        return check_table(*published_samples.cost_sample(path), path)
    return check_table(frame, (*COST_COLUMNS, *LATENCY_COLUMNS), path)


@checked_arguments
def read_system_log(path: str | Path, clusters: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a system log; its clusters are those with a ``load_<cluster>`` column.

    It recognises the published sample; each of its transitions becomes a "day" of two consecutive rows.

    Args:
        path: the file.
        clusters: names of the two clusters of the published sample, which has none; ``None``: retrieval and ranking.

    Raises:
        InputError: any fault of the file; the message names the place and the remedy.
    """
    frame = read_table(path)
    if published_samples.is_system_sample(frame):
        names = ("retrieval", "ranking") if clusters is None or len(clusters) != 2 else clusters
        frame = published_samples.system_sample(frame, path, names)
    clusters = [str(name).removeprefix("load_") for name in frame.columns if str(name).startswith("load_")]
    if not clusters:
        raise InputError(f"{path}: column 'load_<cluster>' is missing; a system log has one for each cluster")
    return check_table(frame, system_columns(clusters), path)


# -- writing -----------------------------------------------------------------------------------------------------
@checked_arguments
def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table atomically in the format of its suffix; a kill never leaves half a file."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: {unknown_option('kind of file', path.suffix, SUFFIXES)}")
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            frame.to_parquet(temporary, index=False, compression="zstd")
        else:
            frame.to_csv(temporary, index=False, sep="\t" if path.suffix == ".tsv" else ",")


@checked_arguments
def write_request_log(frame: pd.DataFrame, path: str | Path, scenario: Scenario | str | Path = "default") -> None:
    """Check a request log against the schema of the scenario, then write it."""
    write_table(check_table(frame, request_columns(Scenario.load(scenario)), path), path)


@checked_arguments
def write_cost_log(frame: pd.DataFrame, path: str | Path) -> None:
    """Check a cost log, then write it."""
    write_table(check_table(frame, (*COST_COLUMNS, *LATENCY_COLUMNS), path), path)


@checked_arguments
def write_system_log(frame: pd.DataFrame, path: str | Path, clusters: Iterable[str]) -> None:
    """Check a system log against the schema of the named clusters, then write it."""
    write_table(check_table(frame, system_columns(clusters), path), path)
