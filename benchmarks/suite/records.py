"""Rows of an experiment on disk: ``<out>/<id>/records.jsonl``, a JSON line each, appended and never overwritten.

A line holds the case and its key, its numbers, seconds of wall-clock and CPU time, and when, where, with which versions
and at which revision it was measured. A process that is killed while it writes leaves a last line without its end: that
one does not count, and the next append takes it away. A case measured again is another line; :func:`newest` has the
last of each.
"""

from __future__ import annotations

import datetime
import fcntl
import functools
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.suite.api import Case, Row
from marca_env.scenario.scenario import Scenario
from marca_env.testbench.testbench import machine
from marca_env.utils.errors import InputError, one_line

FILE = "records.jsonl"
PACKAGES = ("marca-env", "torch", "ray", "numpy", "scipy", "pandas", "gymnasium", "pettingzoo", "cvxpy")
"""Whose versions are kept."""
MACHINE = ("processor", "cores", "memory_gib", "system")
"""What a report says of the machine."""
_NO_ROW = (ValueError, TypeError, KeyError)
_MEASURED = ("numbers", "seconds", "cpu_seconds", "about")


def append(folder: Path, *rows: Row) -> None:
    """Add rows, each whole or not at all, and see them on the disk.

    Args:
        folder: the experiment's own; made if there is none.
        rows: their numbers must be what JSON holds; NumPy's scalars and arrays become numbers and lists.
    """
    lines = "".join(map(to_line, rows)).encode()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another run may write the same file
        file.seek(0)
        whole, end, rest = file.read().rpartition(b"\n")
        if rest and _is_row(rest):  # an editor took the line's end
            lines = b"\n" + lines
        elif rest:
            file.truncate(len(whole) + len(end))
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def to_line(row: Row) -> str:
    """The row as a line of JSON, its end included."""
    told = {"key": row.case.key, "case": row.case.to_dict(), **{name: getattr(row, name) for name in _MEASURED}}
    return json.dumps(told, default=_plain) + "\n"


def from_line(line: str | bytes) -> Row:
    """The row of a line.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    told = json.loads(line)
    row = Row(Case(**told["case"]), **{name: told[name] for name in _MEASURED})
    if not isinstance(row.numbers, dict):
        raise TypeError("its numbers are no mapping")
    if not (isinstance(row.about, dict) and isinstance(row.seconds, (int, float)) and isinstance(row.case.seed, int)):
        raise TypeError("its about is no mapping, its seconds are no number, or its seed is no whole one")
    _check_about(row.about)
    _ = row.case.key  # raises where the case is not plain data
    return row


def _check_about(about: Mapping[str, Any]) -> None:
    """Whether what a report needs, as far as it is there, is of its kind."""
    datetime.datetime.fromisoformat(about.get("when", "2000-01-01"))
    versions, machine = about.get("versions", {}), about.get("machine", dict.fromkeys(MACHINE))
    if not (isinstance(versions, dict) and all(isinstance(version, str) for version in versions.values())):
        raise TypeError("its versions are no mapping of words")
    if not (isinstance(machine, dict) and set(MACHINE) <= machine.keys()):
        raise TypeError(f"its machine is no mapping with {', '.join(MACHINE)}")
    if not isinstance(about.get("revision"), str | None):
        raise TypeError("its revision is no word")


def _plain(value: Any) -> Any:
    """What NumPy's values are in JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")


def read(folder: Path) -> list[Row]:
    """All rows of an experiment, oldest first; none if nothing was recorded.

    Raises:
        InputError: a line that is no row, the torn end apart; the message names file and line.
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
                "remove the line, or move the file away to measure anew"
            ) from None
    return rows


def _is_row(line: bytes) -> bool:
    try:
        from_line(line)
    except _NO_ROW:
        return False
    return True


def newest(rows: Iterable[Row]) -> list[Row]:
    """The last row of each case, in the order in which the cases first came."""
    return list({row.case.key: row for row in rows}.values())


def measured(case: Case, numbers: Any, seconds: float, cpu_seconds: float, *, quick: bool) -> Row:
    """A row of what has just been measured here, as :func:`read` will return it."""
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
    """Of a scenario as it is now; ``None`` where a case's name is of something else."""

    try:
        return Scenario.load(name).version
    except InputError:
        return None


@functools.cache
def this_machine() -> dict[str, Any]:
    """Processor, cores, memory and system."""

    return {name: value for name, value in machine().items() if name not in ("date", "numpy", "python")}


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and of those :data:`PACKAGES` that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def revision() -> str | None:
    """Of the checkout that is running, ``-dirty`` if something in it is not committed; ``None`` outside of one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed, perhaps within somebody else's checkout
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
