"""Reader of a user's tables without interpretation: CSV values stay text, so "007" and "NA" stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marca_env.logs.log_files import SUFFIXES, read_table
from marca_env.logs.text_files import csv_layout
from marca_env.utils.errors import InputError, unknown_option


def read_raw(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file without interpreting its values.

    Args:
        path: the file.
        columns: names of the columns of a CSV file without a header.

    Raises:
        InputError: no such file, an unknown suffix, no rows, ragged rows, a column name that is repeated or a number,
            or another number of columns than ``columns``.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: {unknown_option('kind of file', path.suffix, SUFFIXES)}")
    if path.suffix == ".parquet":
        frame = read_table(path)
    else:
        read_table(path)  # refuses files that are not tables
        layout: dict[str, Any] = csv_layout(path, "\t" if path.suffix == ".tsv" else ",")
        header = 0 if columns is None else None
        frame = pd.read_csv(path, header=header, dtype=str, keep_default_na=False, **layout)
        if layout["decimal"] == ",":
            frame = frame.replace({r"^([-+]?\d+),(\d+)$": r"\1.\2"}, regex=True)
        if columns is not None:
            if frame.shape[1] != len(columns):
                raise InputError(
                    f"{path}: {frame.shape[1]} columns, but the mapping names {len(columns)} ({', '.join(columns)}); "
                    "name every column, in order"
                )
            frame = frame.set_axis(list(columns), axis=1)
    if len(frame) == 0:
        raise InputError(f"{path}: no rows below the header; write the log again")
    if columns is None and all(_is_number(name) for name in frame.columns):
        raise InputError(f"{path}: its first row holds numbers, not names; name the columns in the mapping ('columns')")
    return frame


def _is_number(name: object) -> bool:
    try:
        float(str(name))
    except ValueError:
        return False
    return True
