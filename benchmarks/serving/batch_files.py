"""Files of requests to decide and of decisions: which belong together, what a file was made of, and making it."""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agents.offline.chunks import log_files
from benchmarks.serving.batch import STATUS, STATUS_COLUMN, BatchDecider
from marca_env.logs.log_files import unreadable
from marca_env.utils.errors import InputError
from marca_env.utils.files import atomic_path

METADATA = b"marca_decide"
"""Key of a result's Parquet metadata: settings and input that it was made with, as JSON."""
_SETTINGS, _INPUT = "settings", "input"
_LENGTH_BYTES = 8  # at the end of a Parquet file: length of its footer, and a magic number


@dataclass(frozen=True)
class FileTask:
    """A file of requests and the file that its decisions go to."""

    source: Path
    target: Path


@dataclass
class FileResult:
    """Number of rows that were decided, by their status."""

    rows: int = 0
    status: Counter[str] = field(default_factory=Counter)


def plan_files(requests: Sequence[str], out: Path) -> list[FileTask]:
    """Return a task for each Parquet file of files, folders and patterns; results keep the names below a folder.

    Raises:
        InputError: no file, a file that is not Parquet or lies in ``out``, or two files with the same result.
    """
    tasks: dict[Path, Path] = {}
    for given in requests:
        root = _root(given)
        for source in log_files(given):
            if source.suffix != ".parquet":
                raise InputError(f"--requests {source}: not a Parquet file; give files that end in .parquet")
            if out.resolve() in source.resolve().parents:
                raise InputError(f"--requests {source}: lies in --out {out}; give another folder for the decisions")
            target = out / (source.relative_to(root) if root in source.parents else source.name)
            if (other := tasks.setdefault(target, source)).resolve() != source.resolve():
                raise InputError(f"--requests: {other} and {source} have the same result {target}; decide them apart")
    return [FileTask(source, target) for target, source in tasks.items()]


def _root(given: str) -> Path:
    """Return the folder below which the names of files are kept."""
    path = Path(given)
    if path.is_dir() or not glob.has_magic(given):
        return path if path.is_dir() else path.parent
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))


def count_rows(path: Path) -> int:
    """Return the number of rows of a Parquet file.

    Raises:
        InputError: the file is missing, or cannot be read.
    """
    with _open(path) as file:
        return int(file.metadata.num_rows)


def is_decided(task: FileTask, settings: dict[str, Any]) -> tuple[bool, str]:
    """Return whether the result of a task stands, and if it stands no longer, why.

    Raises:
        InputError: the result was made with other settings, or is no result of this command.
    """
    if not task.target.exists():
        return False, ""
    try:
        made = json.loads((pq.read_metadata(task.target).metadata or {})[METADATA])
        before, source = made[_SETTINGS], made[_INPUT]
    except Exception:  # damaged metadata may raise anything
        raise InputError(
            f"{task.target}: not a result of marca decide, or damaged; give another --out, or remove it"
        ) from None
    if differing := [name for name in settings if before.get(name) != settings[name]]:
        raise InputError(
            f"{task.target}: decided with other settings ({', '.join(differing)}); give another --out, or --again to "
            "decide all files again"
        )
    is_same = source == fingerprint(task.source)
    return is_same, "" if is_same else f"{task.source}: changed since it was decided; it is decided again"


def fingerprint(path: Path) -> dict[str, Any]:
    """Return size, time of change and the SHA-256 sum of the footer of a Parquet file, which describes all its data."""
    about = path.stat()
    with path.open("rb") as file:
        file.seek(max(0, about.st_size - _LENGTH_BYTES))
        length = int.from_bytes(file.read(4), "little") + _LENGTH_BYTES
        file.seek(max(0, about.st_size - length))
        footer = hashlib.sha256(file.read(length)).hexdigest()
    return {"bytes": about.st_size, "changed_ns": about.st_mtime_ns, "footer": footer}


def decide_file(
    decider: BatchDecider,
    task: FileTask,
    settings: dict[str, Any],
    batch_size: int,
    advance: Callable[[int], object] = lambda rows: None,
) -> FileResult:
    """Decide the requests of a file, a batch after the other, and write the decisions atomically.

    Args:
        decider: the decider.
        task: the two files.
        settings: recorded in the result.
        batch_size: rows that are in memory at a time.
        advance: called with the number of rows of each batch.

    Raises:
        InputError: the file is missing, damaged, lacks a column, or changed meanwhile.
        WriteError: the result cannot be written.
    """
    done = FileResult()
    with _open(task.source) as file:
        before = fingerprint(task.source)
        made = json.dumps({_SETTINGS: settings, _INPUT: before})
        schema = decider.schema(file.schema_arrow, str(task.source)).with_metadata({METADATA: made})
        with atomic_path(task.target) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for batch in _batches(file, decider.columns, batch_size, task.source):
                decided = decider.decide(pa.Table.from_batches([batch]))
                writer.write_table(decided.replace_schema_metadata(schema.metadata))
                done.rows += len(decided)
                done.status.update(_count_status(decided))
                advance(len(decided))
            if fingerprint(task.source) != before:
                raise InputError(f"{task.source}: changed while it was read; run the command again")
    return done


def _count_status(decided: pa.Table) -> dict[str, int]:
    """Return the rows of each status, such as ``wrong-type in 'time'``."""
    counts = decided.group_by([STATUS, STATUS_COLUMN]).aggregate([([], "count_all")]).to_pylist()
    named = [(c[STATUS] if c[STATUS_COLUMN] is None else f"{c[STATUS]} in {c[STATUS_COLUMN]!r}", c) for c in counts]
    return {name: c["count_all"] for name, c in named}


def _open(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        return pq.ParquetFile(path)
    except Exception as error:  # damaged metadata may raise anything
        raise unreadable(path, error) from None


def _batches(file: pq.ParquetFile, columns: Sequence[str], size: int, path: Path) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(batch_size=size, columns=list(columns))
    except Exception as error:  # only of reading: faults of the consumer do not arise here
        raise unreadable(path, error) from None
