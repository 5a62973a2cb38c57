"""Selection of the records that the tables and figures of an experiment show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.suite import records
from benchmarks.suite.api import Case, Row
from benchmarks.suite.own_experiments import may_import
from benchmarks.suite.public_data import assume_available
from benchmarks.suite.registry import load_experiment
from benchmarks.suite.runner import takes_methods
from marca_env.utils.errors import InputError

OTHER_SETTINGS = "of other settings than the experiment has now"
UNKNOWN_METHOD = "of methods that the experiment does not find now, or whose code you have not run here"


@dataclass(frozen=True)
class SelectedRecords:
    """The newest row of each case, as far as the rows belong together."""

    rows: list[Row]
    quick: bool
    """Whether they are of quick runs."""
    seeds: list[int]
    """Seeds of a run that would measure these rows."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason → number of rows that are not selected."""
    outdated: list[Row] = field(default_factory=list)
    """Rows that are not selected because of :data:`OTHER_SETTINGS` or :data:`UNKNOWN_METHOD`."""

    @property
    def why_outdated(self) -> str:
        """Description of the outdated rows."""
        return " or ".join(why for why in (OTHER_SETTINGS, UNKNOWN_METHOD) if why in self.left_out)


@assume_available()
def select_records(name: str, folder: Path, *, quick: bool | None = None) -> SelectedRecords:
    """Select the rows of an experiment that may be shown together.

    Rows of quick runs and of full runs are never mixed. Left out are rows of a method that the experiment no longer
    has, and rows measured with another budget or other settings than the experiment now has for the same method, seed,
    scenario and task.

    Args:
        name: of the experiment.
        folder: of its records.
        quick: rows of quick runs, or of full ones; ``None``: full ones, if there are any.

    Raises:
        InputError: damaged records.
    """
    recorded = records.read(folder)
    rows = records.newest(recorded)
    left_out = {"measured again since": len(recorded) - len(rows)}
    if quick is None:
        quick = bool(rows) and all(row.about.get("quick") for row in rows)
    alike = [row for row in rows if bool(row.about.get("quick")) == quick]
    left_out["of full runs" if quick else "of quick runs"] = len(rows) - len(alike)
    experiment = load_experiment(name)
    current, methods = _current(experiment, alike, quick, folder)
    keys = {row.case.key for row in current}
    outdated = [row for row in alike if row.case.key not in keys]
    left_out[UNKNOWN_METHOD] = sum(row.case.method not in methods for row in outdated)
    left_out[OTHER_SETTINGS] = len(outdated) - left_out[UNKNOWN_METHOD]
    left_out = {why: number for why, number in left_out.items() if number}
    return SelectedRecords(current, quick, _run_seeds(experiment, current, quick), left_out, outdated)


def _current(experiment: Any, rows: Sequence[Row], quick: bool, folder: Path) -> tuple[list[Row], set[str]]:
    """Return the rows that the experiment does not define differently now, and its methods.

    A method that is a path of code counts only if this user has run it here: to describe its cases is to import it.

    The rows are in the order of the experiment's cases: tables compare neighbours, and on a cluster cases end in any
    order.
    """
    seeds = tuple(sorted({row.case.seed for row in rows}))
    cases: list[Case] = list(experiment.cases(quick=quick, seeds=seeds))
    others = {row.case.method for row in rows} - {case.method for case in cases}
    for method in sorted(others) if takes_methods(experiment) else ():
        if "." in method and not may_import(folder, method):
            continue
        try:
            own_cases = experiment.cases(quick=quick, seeds=seeds, methods=(method,))
            if hasattr(experiment, "check"):
                for case in own_cases:
                    experiment.check(case)
            cases += own_cases
        except InputError:  # the experiment no longer has the method
            continue
    order = {key: k for k, key in enumerate(dict.fromkeys(case.key for case in cases))}
    methods = {case.method for case in cases}
    defined = {_place(case) for case in cases}
    current = [
        row for row in rows if row.case.key in order or (row.case.method in methods and _place(row.case) not in defined)
    ]
    return sorted(current, key=lambda row: order.get(row.case.key, len(order))), methods


def _run_seeds(experiment: Any, rows: Sequence[Row], quick: bool) -> list[int]:
    """Return the seeds of a run that measures the rows; a case's own seed may differ, or depend on none of them."""
    seeds, keys = sorted({row.case.seed for row in rows}), {row.case.key for row in rows}
    keys_of_seed = {seed: {case.key for case in experiment.cases(quick=quick, seeds=(seed,))} for seed in seeds}
    common = set.intersection(*keys_of_seed.values()) if len(seeds) > 1 else set()
    return [seed for seed in seeds if (keys_of_seed[seed] - common) & keys] or seeds


def _place(case: Case) -> tuple[str, int, str, str]:
    return case.method, case.seed, case.scenario, case.task
