"""Warnings about records that are older than the user's code they were measured with.

A case is data: its key does not know the code behind a dotted path. Only the modification time of the module's own file
counts, not what it imports; a file that was merely touched counts as changed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from benchmarks.suite.api import Row

OUR_PACKAGES = ("agents", "benchmarks", "marca_env", "mpc")
"""Packages whose code is not a user's: rows record its revision."""


def outdated_note(experiment: str, rows: Sequence[Row]) -> str:
    """Describe the recorded rows that are older than their code; empty if there are none.

    Args:
        experiment: dotted path of the experiment's module.
        rows: of cases that are not measured again.
    """
    changed = [files for row in rows if (files := _files_changed_since(row, experiment))]
    if not changed:
        return ""
    names = ", ".join(sorted(set().union(*changed)))
    return f"{len(changed)} of {len(rows)} rows were recorded before {names} last changed; --again measures them again"


def _files_changed_since(row: Row, experiment: str) -> set[str]:
    files = filter(None, map(user_module_file, (experiment, row.case.method.rpartition(".")[0])))
    return {file.name for file in files if file.stat().st_mtime >= _recorded(row)}


def user_module_file(module: str) -> Path | None:
    """Return the file of a user's module; ``None`` for modules of this package and for modules that do not exist.

    Nothing is imported: the name may come from the records of somebody else.
    """
    first, *inner = module.split(".")
    if not all(name.isidentifier() for name in (first, *inner)) or first in OUR_PACKAGES:
        return None
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not inner:
        files = [Path(spec.origin)] if spec.origin else []
    else:
        places = [Path(place).joinpath(*inner) for place in spec.submodule_search_locations or ()]
        files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
    return next((file for file in files if file.is_file()), None)


def _recorded(row: Row) -> float:
    """Return the time by which the row existed, in seconds since the epoch; infinity if the row does not say."""
    return datetime.fromisoformat(row.about["when"]).timestamp() + 1 if "when" in row.about else float("inf")
