"""Mark of a user's own experiment in the folder of its records.

The name of an experiment is the path of a module. A report of records from elsewhere must not import whatever module
their folder is named after: without the mark, the user has to name the experiment.
"""

from __future__ import annotations

from pathlib import Path

from agents.policy.trust import is_signed, sign
from benchmarks.suite.registry import experiment_names
from marca_env.utils.errors import InputError
from marca_env.utils.files import read_json, write_json

FILE = "own.json"


def mark_own(folder: Path, name: str) -> None:
    """Write the mark of an experiment that the user has named and run; the suite's own need none."""
    if name not in experiment_names():
        write_json(folder / FILE, {"experiment": name, "signature": sign({"experiment": name})})


def may_import(folder: Path, name: str) -> bool:
    """Return whether a report may import an experiment that the user has not named: the suite's, or a marked one."""
    if name in experiment_names():
        return True
    try:
        signature = str(read_json(folder / FILE)["signature"])
    except (InputError, KeyError, TypeError):
        return False
    return is_signed({"experiment": name}, signature)
