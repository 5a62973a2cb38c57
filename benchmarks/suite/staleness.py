"""Whether the code of one's own experiment or method changed after rows of it were recorded.

A case is data: its key does not know the code behind a dotted path. The time of the file alone is looked at, not what
it imports; one that was merely touched counts as changed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from benchmarks.suite.api import Row

OURS = ("agents", "benchmarks", "marca_env", "mpc")
"""Packages whose code is no user's: rows keep its revision."""


def outdated_note(experiment: str, rows: Sequence[Row]) -> str:
    """What to say of recorded rows that are older than the code that they are of; empty if there are none.

    Args:
        experiment: its module's dotted path.
        rows: of cases that are not to be measured again.
    """
    changed = [found for row in rows if (found := _changed_since(row, experiment))]
    if not changed:
        return ""
    files = ", ".join(sorted({name for found in changed for name in found}))
    return f"{len(changed)} of {len(rows)} rows were recorded before {files} last changed; --again measures them anew"


def _changed_since(row: Row, experiment: str) -> set[str]:
    """Names of the files that a row is of and that changed after it."""
    files = filter(None, map(own_file, (experiment, row.case.method.rpartition(".")[0])))
    return {file.name for file in files if file.stat().st_mtime >= _recorded(row)}


def own_file(module: str) -> Path | None:
    """The file of a user's module; ``None`` for those of this package, and where there is no such module."""
    if not module or module.partition(".")[0] in OURS:
        return None
    try:
        found = importlib.util.find_spec(module)
    except Exception:  # a name with a dot that is no path, or a package that has a fault by now
        return None
    path = Path(found.origin) if found and found.origin else None
    return path if path and path.is_file() else None


def _recorded(row: Row) -> float:
    """Seconds since the epoch by which the row was there; never, if it does not say."""
    return datetime.fromisoformat(row.about["when"]).timestamp() + 1 if "when" in row.about else float("inf")
