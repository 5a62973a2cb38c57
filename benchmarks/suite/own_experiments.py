"""Mark of what a user has run, in the folder of an experiment's records.

Records name code: the experiment is the path of a module, and a method may be that of a class. A report of records from
elsewhere must not import it. What the user has named in a run here is marked and signed with the user's key
(:mod:`agents.policy.trust`); for anything else the user has to name it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from agents.policy.trust import is_signed, sign
from benchmarks.suite.registry import experiment_names
from marca_env.utils.errors import InputError
from marca_env.utils.files import read_json, write_json

FILE = "own.json"


def mark_own(folder: Path, name: str, methods: Collection[str] = ()) -> None:
    """Mark an experiment that the user has named and run, and the methods whose names are paths of code.

    Args:
        folder: of the experiment's records.
        name: of the experiment.
        methods: of the run; those of earlier runs stay marked.
    """
    before = _own_names(folder)
    names = before | {name} - set(experiment_names()) | {method for method in methods if "." in method}
    if names != before:
        listed: dict[str, Any] = {"names": sorted(names)}
        write_json(folder / FILE, {**listed, "signature": sign(listed)})


def may_import(folder: Path, name: str) -> bool:
    """Return whether a report may import an experiment or a method that the user has not named in its command."""
    return name in experiment_names() or name in _own_names(folder)


def has_own_code(out: Path) -> bool:
    """Return whether a report of the records in ``out`` imports code of the user."""
    return any(_own_names(path.parent) for path in Path(out).glob(f"*/{FILE}"))


def _own_names(folder: Path) -> set[str]:
    try:
        mark = read_json(folder / FILE)
        names, signature = mark["names"], str(mark["signature"])
        return set(names) if is_signed({"names": names}, signature) else set()
    except (InputError, KeyError, TypeError):
        return set()
