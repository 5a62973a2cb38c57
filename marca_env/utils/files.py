"""Files that others may read while they are written: atomic writing, locks of folders, leftovers of killed processes.

Every fault of the file system while something is written, such as a full disk, is a :class:`WriteError` of one line.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from marca_env.utils.errors import InputError, WriteError, one_line, shorten

LOCK, OWNER = ".lock", ".lock.json"
"""Lock of a folder, and the file that says who holds it."""
_MOST_JSON = 64 * 1024**2  # bytes; the objects that Python makes of them take up to twenty times as much
_REMEDIES = {
    errno.ENOSPC: "free some space there, or give another folder",
    errno.EDQUOT: "free some of your quota, or give another folder",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.ENAMETOOLONG: "give a shorter name",
}
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_LEFTOVER = re.compile(r"\.(\d+)(?:-([0-9a-f]{8})-\d+)?\..+", re.DOTALL)
_OLD_SECONDS = 600  # age at which a temporary file of an unknown machine counts as abandoned
_REUSED_SECONDS = 86_400  # age at which the process of a temporary file is another one with the same number
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_counter = itertools.count()
_cleaned: set[Path] = set()
_locks: dict[Path, int] = {}
_locks_guard = threading.Lock()


@contextmanager
def explain_write_faults(path: str | Path) -> Iterator[None]:
    """Turn a fault of the file system while ``path`` is written into one :class:`WriteError`."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: str | Path, error: OSError) -> WriteError:
    """Return the error for a path that cannot be written: the system's reason, and the remedy for it."""
    remedy = _REMEDIES.get(error.errno or 0, "check the folder and its permissions, or give another")
    return WriteError(f"{path}: cannot be written ({_reason(error)}); {remedy}")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else one_line(error, 200)


def describe_fault(error: OSError) -> str:
    """Return one line for a fault of the file system that nothing closer to it has explained."""
    where = "the output" if not error.filename else error.filename
    where = os.fsdecode(where) if isinstance(where, (str, bytes)) else f"file {where}"
    remedy = _REMEDIES.get(error.errno or 0, "check the path and its permissions")
    return shorten(f"{where}: {_reason(error)}; {remedy}")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; it replaces ``path`` if the block succeeds and is removed if not.

    The first call for a folder removes what killed processes left there (:func:`remove_leftovers`).

    Raises:
        WriteError: the block or the replacement failed, such as on a full disk; ``path`` is as before.
    """
    path = Path(path)
    with explain_write_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clean_once(path.parent)
        temporary = temporary_path(path)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a path beside ``path`` that is this call's alone; its name says to which process it belongs."""
    return path.with_name(f".{os.getpid()}-{_HOST}-{next(_counter)}.{path.name}")


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove temporary files and folders of processes that have ended; return what was removed.

    A name with the mark of this machine is removed if its process has ended. A name without a mark, or with that of
    another machine, is removed if no such process runs here either and nothing has changed it for ten minutes.
    """
    removed = []
    with suppress(OSError):
        for path in Path(folder).iterdir():
            match = _LEFTOVER.fullmatch(path.name)
            if match is None or not _is_abandoned(path, int(match[1]), match[2]):
                continue
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                removed.append(path)
    return removed


def _is_abandoned(path: Path, process: int, host: str | None) -> bool:
    if process == os.getpid() and host in (None, _HOST):
        return False
    try:
        age = time.time() - path.lstat().st_mtime
    except OSError:
        return False
    if is_running(process):
        return age > _REUSED_SECONDS
    return host == _HOST or age > _OLD_SECONDS


def is_running(process: int) -> bool:
    """Return whether a process with this number runs on this machine."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _clean_once(folder: Path) -> None:
    folder = folder.absolute()
    if folder not in _cleaned:
        _cleaned.add(folder)
        remove_leftovers(folder)


def write_json(path: str | Path, data: Any) -> None:
    """Write ``data`` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def read_json(path: str | Path, remedy: str = "write the file again", *, finite: bool = False) -> Any:
    """Read a JSON file.

    Args:
        path: the file, in UTF-8.
        remedy: what to do about a damaged file, for messages.
        finite: refuse NaN and infinities.

    Raises:
        InputError: the file is missing, cannot be read, is not JSON, or is too large or nested too deeply for JSON of
            this package.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > _MOST_JSON:
            raise InputError(
                f"{path}: {size / 1024**2:.0f} MiB, more than {_MOST_JSON // 1024**2} MiB of JSON; {remedy}"
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {remedy}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({one_line(error, 200)}); {remedy}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)}); {remedy}") from None
    return parse_json(text, str(path), remedy, finite=finite)


def parse_json(text: str | bytes, where: str, remedy: str = "write the file again", *, finite: bool = False) -> Any:
    """Parse JSON text; any fault, such as one of 100,000 nested lists, is one line.

    Args:
        text: the text.
        where: its source, for messages.
        remedy: what to do about a fault, for messages.
        finite: refuse NaN and infinities, which Python writes and other readers do not know.

    Raises:
        InputError: not JSON, or a number that is not finite; the message names ``where``.
    """

    def refuse(name: str) -> Any:
        raise InputError(f"{where}: has {name} in place of a number; {remedy}")

    def number(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits)

    try:
        return json.loads(text, parse_constant=refuse, parse_float=number) if finite else json.loads(text)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{where}: damaged: not valid JSON, nested too deeply; {remedy}") from None
    except ValueError as error:
        raise InputError(f"{where}: damaged: not valid JSON ({one_line(error, 200)}); {remedy}") from None


def check_writable(folder: Path) -> None:
    """Check that files can be written in a folder; leave no trace.

    Raises:
        InputError: the folder cannot be written; the message gives the system's reason.
    """
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder}: nothing can be written there ({error.strerror}); give another folder") from error
    finally:
        for path in missing:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


@contextmanager
def lock_output(out: str | Path, *, is_file: bool = False) -> Iterator[None]:
    """Keep other processes from writing to the same output while the block runs.

    The lock is the system's (``flock``): it ends with its process, however that ends, and leaves no file unless that is
    killed. Within a process it may be taken several times. Where the file system knows no locks, there is none.

    Args:
        out: the folder, which is made if it is missing, or the file.
        is_file: whether ``out`` is a file.

    Raises:
        InputError: another process writes there; the message names it and its machine.
        WriteError: the folder cannot be written.
    """
    out = Path(out)
    home, prefix = (out.parent, f".{out.name}") if is_file else (out, "")
    key = home.absolute() / f"{prefix}{LOCK}"
    with _locks_guard:
        _locks[key] = _locks.get(key, 0) + 1
        is_held = _locks[key] > 1
    try:
        if is_held:
            yield
        else:
            with _system_lock(out, key, home / f"{prefix}{OWNER}"):
                yield
    finally:
        with _locks_guard:
            _locks[key] -= 1


@contextmanager
def _system_lock(out: Path, path: Path, owner: Path) -> Iterator[None]:
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    check_writable(path.parent)
    with explain_write_faults(out):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clean_once(path.parent)
        lock = _acquire(out, path, owner)
    try:
        command = " ".join([Path(sys.argv[0] or "python").name, *sys.argv[1:3]])[:100]
        about = {"pid": os.getpid(), "host": socket.gethostname(), "command": command}
        write_json(owner, {**about, "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        yield
    finally:
        for file in (owner, path):
            with suppress(OSError):
                file.unlink(missing_ok=True)
        if lock is not None:
            lock.release()
        for folder in made:  # if nothing was written there
            with suppress(OSError):
                folder.rmdir()


def _acquire(out: Path, path: Path, owner: Path) -> Any:
    """Take the lock; ``None`` on a file system that has none."""
    lock = FileLock(path)
    for _ in range(100):
        try:
            lock.acquire(timeout=0)
        except Timeout:  # an OSError, too
            break
        except NotImplementedError:
            return None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return None
            raise
        if path.exists():
            return lock
        lock.release()  # it is of a file that its last owner was just removing
    raise InputError(f"{out}: in use by {_describe_owner(owner)}; wait until it ends, or give another folder")


def _describe_owner(owner: Path) -> str:
    try:
        about = read_json(owner)
        return f"process {about['pid']} on {about['host']} since {about['since']} ({about['command']})"
    except (InputError, KeyError, TypeError):  # it has just begun, or just ended
        return "another process"
