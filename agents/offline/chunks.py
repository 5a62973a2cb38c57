"""Where the rows of a request log lie: files, folders and globs of Parquet and CSV, cut into pieces, unread."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from marca_env.logs import published_samples
from marca_env.logs.log_files import SUFFIXES, read_table
from marca_env.logs.schema import request_columns
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

PIECE_BYTES = 4 * 1024**2
"""About how much of a CSV file is read at once."""
_SCAN = 16 * 1024**2


def log_files(sources: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of a log, in the order of their rows: files as given, a folder's or a glob's by name.

    Raises:
        InputError: nothing there, or no log among it.
    """
    found: list[Path] = []
    for source in [sources] if isinstance(sources, (str, Path)) else list(sources):
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.name[0] not in "._")
            if not inside:
                raise InputError(f"{path}: no log in this folder; logs end in {', '.join(SUFFIXES)}")
            found += inside
        elif path.is_file() or not glob.has_magic(str(source)):
            found.append(path)  # one that is not there is refused when it is read
        else:
            matching = sorted(Path(p) for p in glob.glob(str(source), recursive=True) if Path(p).is_file())
            if not matching:
                raise InputError(f"{source}: no file matches; check the pattern")
            found += matching
    if not found:
        raise InputError("no log given; name at least one file, folder or pattern")
    return found


@dataclass(frozen=True)
class Piece:
    """A part of a log file that is read at once: a row group of Parquet, a range of bytes of CSV, or a whole sample."""

    path: str
    file: int
    """Number of the file in the log."""
    first_row: int
    """Rows of the file before it."""
    offset: int
    """Rows of the log before it."""
    rows: int
    kind: str
    """``parquet``, ``csv`` or ``sample`` (the published one, without a header)."""
    start: int = 0
    """Row group, or first byte."""
    stop: int = 0
    header: tuple[str, ...] = ()


def log_pieces(files: Sequence[Path], scenario: Scenario) -> list[Piece]:
    """Every piece of a log, in order; reads no more than footers of Parquet and the line ends of CSV.

    Raises:
        InputError: a file that is missing, empty, cut short or without a needed column, or a log without rows.
    """
    pieces: list[Piece] = []
    offset = 0
    for number, path in enumerate(files):
        find = _parquet_pieces if path.suffix == ".parquet" else _csv_pieces
        for kind, header, start, stop, first_row, rows in find(path, scenario):
            if kind == "sample" and len(files) > 1:
                raise InputError(f"{path}: a log without a header stands alone, as its ids are ranked; give one file")
            pieces.append(Piece(str(path), number, first_row, offset, rows, kind, start, stop, header))
            offset += rows
    if offset == 0:
        raise InputError(f"{', '.join(map(str, files[:3]))}: no rows; write the log again")
    return pieces


_Found = list[tuple[str, tuple[str, ...], int, int, int, int]]


def _parquet_pieces(path: Path, scenario: Scenario) -> _Found:
    if not path.is_file() or path.stat().st_size == 0:
        read_table(path)  # says what is wrong
    try:
        with pq.ParquetFile(path) as file:
            meta, names = file.metadata, tuple(file.schema_arrow.names)
            sizes = [meta.row_group(k).num_rows for k in range(meta.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from None
    _require_columns(path, names, scenario)
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    return [("parquet", (), k, k + 1, int(starts[k]), int(n)) for k, n in enumerate(sizes) if n]


def _csv_pieces(path: Path, scenario: Scenario) -> _Found:
    if path.suffix not in SUFFIXES or not path.is_file() or path.stat().st_size == 0:
        read_table(path)  # says what is wrong
    try:
        head = pd.read_csv(path, sep=separator(path), nrows=1)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None
    if published_samples.is_headerless(head):
        return [("sample", (), 0, 0, 0, len(published_samples.request_sample(path, scenario)[0]))]
    header = tuple(map(str, head.columns))
    _require_columns(path, header, scenario)
    return [("csv", header, *bounds) for bounds in _line_ranges(path)]


def _line_ranges(path: Path) -> list[tuple[int, int, int, int]]:
    """First byte, end, first row and rows of consecutive parts of a CSV file, below its header."""
    found = []
    with path.open("rb") as file:
        start = position = len(file.readline())
        end = _content_end(path)
        row = pending = 0
        while position < end:
            chunk = file.read(min(_SCAN, end - position))
            at = 0
            while at < len(chunk):  # cut behind the first line end after PIECE_BYTES
                cut = chunk.find(b"\n", max(at, start + PIECE_BYTES - position))
                stop = len(chunk) if cut < 0 else cut + 1
                pending += chunk.count(b"\n", at, stop)
                if cut >= 0:
                    found.append((start, position + stop, row, pending))
                    start, row, pending = position + stop, row + pending, 0
                at = stop
            position += len(chunk)
        if end > start:
            found.append((start, end, row, pending + 1))  # the last line end is not content
    return found


def _content_end(path: Path) -> int:
    """Bytes of a file without the white space at its end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 4096))
        tail = file.read()
    return size - (len(tail) - len(tail.rstrip()))


def _require_columns(path: Path, names: Sequence[str], scenario: Scenario) -> None:
    needed = [c.name for c in request_columns(scenario)]
    for name in needed:
        if name not in names:
            raise InputError(
                f"{path}: column {name!r} is missing; a log of this kind has the columns {', '.join(needed)}"
            )


def separator(path: str | Path) -> str:
    """What divides the fields of a text file."""
    return "\t" if Path(path).suffix == ".tsv" else ","


def unreadable(where: object, error: BaseException) -> InputError:
    """The complaint about a file that cannot be parsed."""
    reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return InputError(f"{where}: cannot be read ({reason[0]}); it may be cut short: write the log again")
