"""Request log files cut into chunks: Parquet and CSV files, folders and globs are located, but not read.

``pyarrow.dataset`` does not fit here. It gives the row groups of Parquet, but it can only scan CSV from the start, and
its errors name neither rows nor lines. Shuffled reading needs random access to the chunks of both formats.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from marca_env.integration.logged_system import headerless_requests
from marca_env.logs import published_samples
from marca_env.logs.log_files import SUFFIXES, read_table, unreadable
from marca_env.logs.schema import request_columns
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

CHUNK_BYTES = 4 * 1024**2
"""Approximate size of a chunk of a CSV file."""
_SCAN_BYTES = 16 * 1024**2


def log_files(sources: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the files of a log in the order of their rows: files as given, those of a folder or glob by name.

    Raises:
        InputError: no source, an empty folder, or a glob without matches.
    """
    files: list[Path] = []
    for source in [sources] if isinstance(sources, (str, Path)) else list(sources):
        path = Path(source)
        if path.is_dir():
            logs = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.name[0] not in "._")
            if not logs:
                raise InputError(f"{path}: no log in this folder; use files that end in {', '.join(SUFFIXES)}")
            files += logs
        elif path.is_file() or not glob.has_magic(str(source)):
            files.append(path)  # a missing file is refused when it is read
        else:
            matches = sorted(Path(p) for p in glob.glob(str(source), recursive=True) if Path(p).is_file())
            if not matches:
                raise InputError(f"{source}: no file matches; check the pattern")
            files += matches
    if not files:
        raise InputError("no log given; pass at least one file, folder or pattern")
    return files


@dataclass(frozen=True)
class LogChunk:
    """A part of a log file that is read at once: a Parquet row group, a byte range of CSV, or a whole sample file."""

    path: str
    file: int
    """Index of the file in the log."""
    first_row: int
    """Number of rows of the file before the chunk."""
    offset: int
    """Number of rows of the log before the chunk."""
    rows: int
    kind: str
    """``parquet``, ``csv`` or ``sample`` (the published sample, which has no header)."""
    start: int = 0
    """Row group, or first byte."""
    stop: int = 0
    """Row group or byte after the chunk."""
    header: tuple[str, ...] = ()


def log_chunks(files: Sequence[Path], scenario: Scenario) -> list[LogChunk]:
    """Return the chunks of a log in order; this reads only the footers of Parquet and the line ends of CSV.

    Raises:
        InputError: a file that is missing, empty, cut short or without a needed column, or a log without rows.
    """
    chunks: list[LogChunk] = []
    offset = 0
    for number, path in enumerate(files):
        find = _parquet_chunks if path.suffix == ".parquet" else _csv_chunks
        for kind, header, start, stop, first_row, rows in find(path, scenario):
            if kind == "sample" and len(files) > 1:
                raise InputError(
                    f"{path}: a log without a header must be the only file, because its ids are ranked; pass one file"
                )
            chunks.append(LogChunk(str(path), number, first_row, offset, rows, kind, start, stop, header))
            offset += rows
    if offset == 0:
        raise InputError(f"{', '.join(map(str, files[:3]))}: no rows; write the log again")
    return chunks


_ChunkRanges = list[tuple[str, tuple[str, ...], int, int, int, int]]
"""Kind, header, start, stop, first row and number of rows of each chunk of a file."""


def _parquet_chunks(path: Path, scenario: Scenario) -> _ChunkRanges:
    if not path.is_file() or path.stat().st_size == 0:
        read_table(path)  # raises the error
    try:
        with pq.ParquetFile(path) as file:
            meta, names = file.metadata, tuple(file.schema_arrow.names)
            sizes = [meta.row_group(k).num_rows for k in range(meta.num_row_groups)]
    except Exception as error:  # damaged metadata may raise anything
        raise unreadable(path, error) from None
    _require_columns(path, names, scenario)
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    return [("parquet", (), k, k + 1, int(starts[k]), int(n)) for k, n in enumerate(sizes) if n]


def _csv_chunks(path: Path, scenario: Scenario) -> _ChunkRanges:
    if path.suffix not in SUFFIXES or not path.is_file() or path.stat().st_size == 0:
        read_table(path)  # raises the error
    try:
        head = pd.read_csv(path, sep=separator(path), nrows=1)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None
    if published_samples.is_headerless(head):
        return [("sample", (), 0, 0, 0, len(headerless_requests(path, scenario)[0]))]
    header = tuple(map(str, head.columns))
    _require_columns(path, header, scenario)
    return [("csv", header, *bounds) for bounds in _line_ranges(path)]


def _line_ranges(path: Path) -> list[tuple[int, int, int, int]]:
    """Return first byte, end, first row and number of rows of consecutive parts of a CSV file, below its header."""
    ranges = []
    with path.open("rb") as file:
        start = position = len(file.readline())
        end = _content_end(path)
        row = pending = 0
        while position < end:
            data = file.read(min(_SCAN_BYTES, end - position))
            at = 0
            while at < len(data):  # cut behind the first line end after CHUNK_BYTES
                cut = data.find(b"\n", max(at, start + CHUNK_BYTES - position))
                stop = len(data) if cut < 0 else cut + 1
                pending += data.count(b"\n", at, stop)
                if cut >= 0:
                    ranges.append((start, position + stop, row, pending))
                    start, row, pending = position + stop, row + pending, 0
                at = stop
            position += len(data)
        if end > start:
            ranges.append((start, end, row, pending + 1))  # the last line end is not part of the content
    return ranges


def _content_end(path: Path) -> int:
    """Return the size of a file in bytes, without the white space at its end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 4096))
        tail = file.read()
    return size - (len(tail) - len(tail.rstrip()))


def _require_columns(path: Path, names: Sequence[str], scenario: Scenario) -> None:
    needed = [c.name for c in request_columns(scenario)]
    for name in needed:
        if name not in names:
            raise InputError(f"{path}: column {name!r} is missing; use a log with the columns {', '.join(needed)}")


def separator(path: str | Path) -> str:
    """Return the character that separates the fields of a text file."""
    return "\t" if Path(path).suffix == ".tsv" else ","
