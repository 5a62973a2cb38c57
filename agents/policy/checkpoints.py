"""The folders that a training run leaves: named, sealed, checked and thinned out. Needs no ray.

A checkpoint is written beside its place, sealed with a manifest of its files' sizes and SHA-256 sums, and renamed.
Whatever kills the run leaves either the whole checkpoint or a ``.part-…`` folder; whatever damages one afterwards
shows in the manifest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marca_env.utils.errors import InputError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_PREFIX, _PART = "checkpoint_", ".part-"


def checkpoint_name(iteration: int) -> str:
    """``checkpoint_000050``."""
    return f"{_PREFIX}{iteration:06d}"


def checkpoints_in(folder: str | Path) -> list[Path]:
    """The checkpoints of a run, oldest first, whole or not; none if there is no such folder."""
    found = [p for p in Path(folder).glob(f"{_PREFIX}*") if p.is_dir() and iteration_of(p) is not None]
    return sorted(found, key=lambda p: iteration_of(p) or 0)


def iteration_of(checkpoint: Path) -> int | None:
    """The iteration in the name of a checkpoint; ``None`` if it is named otherwise."""
    number = checkpoint.name.removeprefix(_PREFIX)
    return int(number) if checkpoint.name.startswith(_PREFIX) and number.isdigit() else None


def require_fresh(folder: str | Path) -> None:
    """Refuse a folder with checkpoints: those of another run would be taken for the newest of this one.

    Raises:
        InputError: there are some.
    """
    found = checkpoints_in(folder)
    if found:
        raise InputError(f"{found[-1]}: left by an earlier run; resume it, or give another folder (or remove it)")


@contextmanager
def writing_checkpoint(folder: str | Path, iteration: int) -> Iterator[Path]:
    """A folder to write into; sealed and renamed to ``folder/checkpoint_<iteration>`` when the block ends well."""
    final = Path(folder).resolve() / checkpoint_name(iteration)
    part = final.with_name(f"{_PART}{socket.gethostname()}-{os.getpid()}-{final.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        seal(part)
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
        _flush(final.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def seal(folder: Path) -> None:
    """Write the manifest of all files in ``folder``, and have everything on the disk before returning."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb+") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            os.fsync(handle.fileno())
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    with (folder / MANIFEST).open("w", encoding="utf-8") as handle:
        json.dump({"files": files}, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    for inner in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        _flush(inner)


def fault_of(checkpoint: str | Path) -> str | None:
    """What is wrong with a sealed checkpoint; ``None`` if it is whole."""
    checkpoint = Path(checkpoint)
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        return f"{MANIFEST} is missing"
    try:
        files: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))["files"]
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


def newest_whole(folder: str | Path) -> tuple[Path, dict[Path, str]]:
    """The newest whole checkpoint of a run, and what is wrong with those after it.

    Raises:
        InputError: there is no checkpoint, or none is whole.
    """
    found = checkpoints_in(folder)
    if not found:
        raise InputError(f"{folder}: no checkpoint here; give a folder named checkpoint_… or one that holds some")
    torn: dict[Path, str] = {}
    for checkpoint in reversed(found):
        fault = fault_of(checkpoint)
        if fault is None:
            return checkpoint, torn
        torn[checkpoint] = fault
    listed = "; ".join(f"{path.name}: {fault}" for path, fault in torn.items())
    raise InputError(f"{folder}: none of its checkpoints is whole ({listed}); train again into another folder")


def newest_checkpoint(folder: str | Path) -> Path:
    """As :func:`newest_whole`; a warning names the torn ones that are passed over."""
    found, torn = newest_whole(folder)
    if torn:
        listed = "; ".join(f"{p.name}: {fault}" for p, fault in torn.items())
        logger.warning("%s: torn checkpoints are passed over (%s); going on from %s", folder, listed, found.name)
    return found


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove the unfinished checkpoints of processes of this machine that have ended; returns them."""
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
        shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # called between checkpoints: what bears this process's number is an earlier one's
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
