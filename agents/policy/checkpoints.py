"""Checkpoint folders of a training run: write, verify, list and delete them.

A checkpoint is written to a temporary ``.part-…`` folder, sealed with a manifest of its files' sizes and SHA-256 sums,
and renamed. A run that is killed leaves either a complete checkpoint or a ``.part-…`` folder. The manifest reveals
later damage, and its signature says whether this user wrote the checkpoint (:mod:`agents.policy.trust`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agents.policy.trust import MANIFEST, sign
from marca_env.utils.errors import InputError
from marca_env.utils.files import explain_write_faults, is_running, read_json

logger = logging.getLogger(__name__)

_PREFIX, _PART = "checkpoint_", ".part-"


def checkpoint_name(iteration: int) -> str:
    """Return the folder name of an iteration's checkpoint, such as ``checkpoint_000050``."""
    return f"{_PREFIX}{iteration:06d}"


def checkpoints_in(folder: str | Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first, damaged ones included; empty if the folder does not exist."""
    checkpoints = [p for p in Path(folder).glob(f"{_PREFIX}*") if p.is_dir() and iteration_of(p) is not None]
    return sorted(checkpoints, key=lambda p: iteration_of(p) or 0)


def iteration_of(checkpoint: Path) -> int | None:
    """Return the iteration in the name of a checkpoint; ``None`` for any other name."""
    number = checkpoint.name.removeprefix(_PREFIX)
    return int(number) if checkpoint.name.startswith(_PREFIX) and number.isdigit() else None


def require_no_checkpoints(folder: str | Path) -> None:
    """Refuse a folder that contains checkpoints: they could be mistaken for the newest checkpoints of a new run.

    Raises:
        InputError: the folder contains checkpoints.
    """
    checkpoints = checkpoints_in(folder)
    if checkpoints:
        raise InputError(
            f"{checkpoints[-1]}: left by an earlier run; resume that run, use another folder, or delete the checkpoints"
        )


@contextmanager
def writing_checkpoint(folder: str | Path, iteration: int) -> Iterator[Path]:
    """Yield a folder to write into; it becomes ``folder/checkpoint_<iteration>`` when the block ends without error."""
    final = Path(folder).resolve() / checkpoint_name(iteration)
    part = _aside(final)
    with explain_write_faults(final):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            yield part
            seal(part)
            with _set_aside(final):
                part.rename(final)
            _flush(final.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _aside(path: Path) -> Path:
    """Return a folder beside ``path`` whose name says to which process and machine it belongs."""
    return path.with_name(f"{_PART}{socket.gethostname()}-{os.getpid()}-{path.name}")


@contextmanager
def _set_aside(checkpoint: Path) -> Iterator[None]:
    """Rename a checkpoint, if it is there, and remove it after the block: nobody loads a half of it."""
    aside = _aside(checkpoint.with_name(f"{checkpoint.name}-old"))
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):
        checkpoint.rename(aside)
    yield
    shutil.rmtree(aside, ignore_errors=True)


def seal(folder: Path) -> None:
    """Write the signed manifest of all files in ``folder`` and flush everything to disk.

    Call it last: a checkpoint without a manifest counts as incomplete.
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb+") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            os.fsync(handle.fileno())
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    with (folder / MANIFEST).open("w", encoding="utf-8") as handle:
        json.dump({"files": files, "signature": sign(files)}, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    for inner in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        _flush(inner)


def find_fault(checkpoint: str | Path) -> str | None:
    """Return a description of the damage of a sealed checkpoint; ``None`` if it is complete."""
    checkpoint = Path(checkpoint)
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        return f"{MANIFEST} is missing"
    try:
        files: dict[str, Any] = read_json(manifest)["files"]
        expected = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    for name, (size, digest) in expected.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes of {size}"
        with path.open("rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != digest:
                return f"{name} is damaged (its checksum differs)"
    return None


def newest_intact(folder: str | Path) -> tuple[Path, dict[Path, str]]:
    """Return the newest intact checkpoint of a run, and the faults of the damaged ones after it.

    Raises:
        InputError: the folder has no checkpoint, or all are damaged.
    """
    checkpoints = checkpoints_in(folder)
    if not checkpoints:
        raise InputError(
            f"{folder}: no checkpoint here; pass a folder named checkpoint_…, or a folder that contains some"
        )
    damaged: dict[Path, str] = {}
    for checkpoint in reversed(checkpoints):
        fault = find_fault(checkpoint)
        if fault is None:
            return checkpoint, damaged
        damaged[checkpoint] = fault
    listed = "; ".join(f"{path.name}: {fault}" for path, fault in damaged.items())
    raise InputError(f"{folder}: all checkpoints are damaged ({listed}); train again into another folder")


def newest_checkpoint(folder: str | Path) -> Path:
    """Return the newest intact checkpoint of a run; a warning names the damaged ones that are skipped."""
    checkpoint, damaged = newest_intact(folder)
    if damaged:
        listed = "; ".join(f"{p.name}: {fault}" for p, fault in damaged.items())
        logger.warning("%s: skipped damaged checkpoints (%s); using %s", folder, listed, checkpoint.name)
    return checkpoint


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove unfinished checkpoints of processes of this machine that have ended; return the removed folders."""
    removed = []
    prefix = f"{_PART}{socket.gethostname()}-"
    for path in Path(folder).glob(f"{_PART}*"):
        owner = path.name.removeprefix(prefix).partition("-")[0]
        if path.name.startswith(prefix) and owner.isdigit() and not _is_running(int(owner)):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def keep_newest(folder: str | Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints."""
    for path in checkpoints_in(folder)[:-keep]:
        with _set_aside(path):
            pass


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # this runs between checkpoints: the folder belongs to an earlier process with the same id
    return is_running(process)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
