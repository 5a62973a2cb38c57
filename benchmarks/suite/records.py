"""Records of an experiment on disk: ``<out>/<id>/records.jsonl``, one JSON line a row, appended, never overwritten.

A line holds the case and its key, its numbers, seconds of wall-clock and CPU time, and when, where, with which versions
and at which revision it was measured. A process that is killed while it writes leaves an unfinished last line: it is
ignored, and the next append removes it. A case that is measured again is another line; :func:`newest` returns the last
line of each case.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks.suite.api import Case, Row
from marca_env.scenario.scenario import Scenario
from marca_env.testbench.testbench import describe_machine
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import explain_write_faults, parse_json

FILE = "records.jsonl"
PACKAGES = ("marca-env", "torch", "ray", "numpy", "scipy", "pandas", "gymnasium", "pettingzoo", "cvxpy")
"""Packages whose versions are recorded."""
MACHINE = ("processor", "cores", "memory_gib", "system")
"""Fields of the machine that a report shows."""
_NO_ROW = (ValueError, TypeError, KeyError)
_MEASURED = ("numbers", "seconds", "cpu_seconds", "about")


def append(folder: Path, *rows: Row) -> None:
    """Append rows, each completely or not at all, and sync them to the disk.

    Args:
        folder: of the experiment; made if it is missing.
        rows: their numbers must be JSON data; NumPy scalars and arrays become numbers and lists.
    """
    lines = "".join(map(to_line, rows)).encode()
    path = folder / FILE
    with explain_write_faults(path):
        folder.mkdir(parents=True, exist_ok=True)
        _append(path, lines)


def _append(path: Path, lines: bytes) -> None:
    with FileLock(path.with_suffix(".lock")), path.open("ab+") as file:  # another run may write the same file
        file.seek(0)
        complete, newline, rest = file.read().rpartition(b"\n")
        if rest and _is_row(rest):  # an editor removed the newline
            lines = b"\n" + lines
        elif rest:
            file.truncate(len(complete) + len(newline))
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def to_line(row: Row) -> str:
    """Return the row as a line of JSON with its newline."""
    data = {"key": row.case.key, "case": row.case.to_dict(), **{name: getattr(row, name) for name in _MEASURED}}
    return json.dumps(data, default=_plain) + "\n"


def from_line(line: str | bytes) -> Row:
    """Read the row of a line.

    Raises:
        ValueError: the line is not JSON.
        TypeError: a field has the wrong type.
        KeyError: a field is missing.
    """
    data = parse_json(line, "record")
    row = Row(Case(**data["case"]), **{name: data[name] for name in _MEASURED})
    if not isinstance(row.numbers, dict):
        raise TypeError("`numbers` must be a mapping")
    if not (isinstance(row.about, dict) and isinstance(row.seconds, (int, float)) and isinstance(row.case.seed, int)):
        raise TypeError("`about` must be a mapping, `seconds` a number, `seed` an integer")
    _check_about(row.about)
    _ = row.case.key  # raises where the case is not plain data
    return row


def _check_about(about: Mapping[str, Any]) -> None:
    """Check the types of the fields that a report needs; each may be missing."""
    datetime.datetime.fromisoformat(about.get("when", "2000-01-01"))
    versions, machine = about.get("versions", {}), about.get("machine", dict.fromkeys(MACHINE))
    if not (isinstance(versions, dict) and all(isinstance(version, str) for version in versions.values())):
        raise TypeError("`versions` must be a mapping of strings")
    if not (isinstance(machine, dict) and set(MACHINE) <= machine.keys()):
        raise TypeError(f"`machine` must be a mapping with {', '.join(MACHINE)}")
    if not isinstance(about.get("revision"), str | None):
        raise TypeError("`revision` must be a string")


def _plain(value: Any) -> Any:
    """Convert NumPy values to JSON data."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")


def read(folder: Path) -> list[Row]:
    """Read all rows of an experiment, oldest first; an empty list if nothing is recorded.

    Raises:
        InputError: a line that is not a row, unless it is an unfinished last one; the message names file and line.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return []
    *lines, rest = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate([*lines, rest] if rest and _is_row(rest) else lines, 1):
        try:
            rows.append(from_line(line))
        except _NO_ROW as error:
            raise InputError(
                f"{path}, line {number}: not a record ({type(error).__name__}: {one_line(error)[:100]}); "
                "remove the line, or move the file away to measure again"
            ) from None
    return rows


def _is_row(line: bytes) -> bool:
    try:
        from_line(line)
    except _NO_ROW:
        return False
    return True


def newest(rows: Iterable[Row]) -> list[Row]:
    """Return the last row of each case, in the order in which the cases first came."""
    return list({row.case.key: row for row in rows}.values())


def new_row(case: Case, numbers: Any, seconds: float, cpu_seconds: float, *, quick: bool) -> Row:
    """Return the row of a case just measured on this machine, as :func:`read` will return it."""
    about = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "scenario_version": scenario_version(case.scenario),
        "machine": this_machine(),
        "versions": versions(),
        "revision": revision(),
    }
    return from_line(to_line(Row(case, numbers, round(seconds, 3), about, round(cpu_seconds, 3))))


@functools.cache
def scenario_version(name: str) -> int | None:
    """Return the present version of a scenario; ``None`` if ``name`` is not a scenario."""
    try:
        return Scenario.load(name).version
    except InputError:
        return None


@functools.cache
def this_machine() -> dict[str, Any]:
    """Return processor, cores, memory and system."""
    return {name: value for name, value in describe_machine().items() if name not in ("date", "numpy", "python")}


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed :data:`PACKAGES`."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


@functools.cache
def revision() -> str | None:
    """Return the revision of the running checkout, ``-dirty`` if it has changes; ``None`` outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed, perhaps inside another checkout
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
