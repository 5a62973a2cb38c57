"""Tables of text with any layout: separator, leading comments, with or without a header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from marca_env.logs.text_files import read_text
from marca_env.utils.errors import InputError, one_line

_SEPARATORS = ("\t", ";", "|", ",")
"""In order of preference: a comma may also be a decimal mark."""
_COMMENTS = ("#", "%", "//")
_SAMPLE = 200  # lines from which the layout is read
_LONGEST_SHOWN = 60  # characters of a line in a message
_NUMBER = re.compile(r"[-+]?[\d.,' ]*\d[\d.,']*(e[-+]?\d+)?", re.IGNORECASE)
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b.*|\d{8}T?\d*.*|\d{1,2}[- ][A-Za-z]{3}[- ].*")


@dataclass(frozen=True)
class TextTable:
    """A table whose values are text."""

    frame: pd.DataFrame
    """Values without blanks around them; a missing one is an empty text."""
    lines: np.ndarray
    """Line of the file of each row, from 1 on."""
    separator: str
    """Character between fields."""


def read_text_table(path: Path, *, header_decides: bool = False) -> TextTable:
    """Read a table: separator, comment lines and header are found out.

    A table without a header gets the names ``column 1``, ``column 2`` and so on.

    Args:
        path: the file.
        header_decides: whether the first line of the table must hold the separator; a value may then hold another.

    Raises:
        InputError: the file is not readable (see :func:`marca_env.logs.text_files.read_text`), has one column only, or
            its rows have another number of fields than its header.
    """
    text = read_text(path)
    separator, first, names = _layout(path, text.split("\n", _SAMPLE)[:_SAMPLE], header_decides)
    frame = _parse(path, text, separator, first)
    if frame.shape[1] > len(names):
        surplus = frame.iloc[:, len(names) :]
        if (surplus != "").to_numpy().any():
            raise InputError(
                f"{path}: its rows have more fields than its header ({frame.shape[1]}, not {len(names)}); name every "
                f"column, or drop the surplus{_decimal_hint(separator)}"
            )
        frame = frame.iloc[:, : len(names)]
    frame = frame.set_axis(list(names[: frame.shape[1]]), axis=1)
    filled = np.flatnonzero((frame != "").to_numpy().any(axis=1))
    lines = first + 1 + np.arange(len(frame))
    return TextTable(frame.take(filled).reset_index(drop=True), lines[filled], separator)


def _layout(path: Path, lines: Sequence[str], header_decides: bool) -> tuple[str, int, list[str]]:
    """Return the separator, the number of lines before the first row of values, and the names of the columns."""
    content = [k for k, line in enumerate(lines) if line.strip() and not line.lstrip().startswith(_COMMENTS)]
    if content and (declared := re.fullmatch(r"sep=(.)", lines[content[0]].strip(), re.IGNORECASE)):
        content, separator = content[1:], declared[1]
    else:
        separator = _separator(path, [lines[k] for k in content], header_decides)
    content = content[next((k for k, n in enumerate(content) if separator in lines[n]), 0) :]
    if not content:
        raise InputError(f"{path}: no rows; write the file again")
    cells = _cells(lines[content[0]], separator)
    if not _are_values(cells):
        return separator, content[1] if len(content) > 1 else content[0] + 1, cells
    commented = [line.lstrip().lstrip("#%/ ") for line in lines[: content[0]] if line.lstrip().startswith(_COMMENTS)]
    named = _cells(commented[-1], separator) if commented else []
    if len(named) == len(cells) and not _are_values(named):
        return separator, content[0], named
    return separator, content[0], [f"column {k}" for k in range(1, len(cells) + 1)]


def _separator(path: Path, lines: Sequence[str], header_decides: bool) -> str:
    """Return the separator that most lines hold equally often."""
    candidates = [s for s in _SEPARATORS if not header_decides or (lines and s in lines[0])]
    for separator in candidates:
        counts = [len(_cells(line, separator)) for line in lines]
        usual = max(set(counts), key=counts.count, default=1)
        if usual > 1 and counts.count(usual) >= 0.5 * len(counts):
            return separator
    shown = lines[-1][:_LONGEST_SHOWN] if lines else ""
    raise InputError(f"{path}: looks like one column ({shown!r}); separate time and value by a comma, semicolon or tab")


def _cells(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]
    except csv.Error:  # a cell of more than 131,072 characters
        return []


def _are_values(cells: Sequence[str]) -> bool:
    """Return whether the cells are a row of values and not names: a date or number comes first or is in each cell."""
    looks = [bool(_NUMBER.fullmatch(c) or _DATE.fullmatch(c)) for c in cells if c]
    return len(looks) > 0 and (looks[0] or all(looks)) and any(looks)


def _decimal_hint(separator: str) -> str:
    return "; if numbers have decimal commas, separate the fields by semicolons" if separator == "," else ""


def _parse(path: Path, text: str, separator: str, first: int) -> pd.DataFrame:
    """Return the rows of values below the first lines."""
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,
            skiprows=first,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            skipinitialspace=True,
        )
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: no rows below the header; write the file again") from None
    except (pd.errors.ParserError, ValueError) as error:
        hint = _decimal_hint(separator) or "; write the same number of fields in every row"
        raise InputError(f"{path}: not a readable CSV file: {one_line(error)[:200]}{hint}") from None
    return frame.fillna("").apply(lambda column: column.str.strip())
