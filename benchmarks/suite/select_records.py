"""Which of an experiment's records its tables and figures show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.suite import records
from benchmarks.suite.api import Case, Row
from benchmarks.suite.registry import load
from benchmarks.suite.runner import takes_methods
from marca_env.utils.errors import InputError

OTHER_SETTINGS = "of other settings than the experiment has now"
UNKNOWN_METHOD = "of methods that the experiment does not find now"


@dataclass(frozen=True)
class Shown:
    """The newest row of each case, as far as they belong together."""

    rows: list[Row]
    quick: bool
    """Whether they are of quick runs."""
    seeds: list[int]
    """That a run must be given to measure them."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Why rows are left out → how many."""
    outdated: list[Row] = field(default_factory=list)
    """Those that :data:`OTHER_SETTINGS` and :data:`UNKNOWN_METHOD` leave out."""

    @property
    def why_outdated(self) -> str:
        """Of what those are, in words."""
        return " or ".join(why for why in (OTHER_SETTINGS, UNKNOWN_METHOD) if why in self.left_out)


def shown(name: str, folder: Path, *, quick: bool | None = None) -> Shown:
    """What there is to show of an experiment.

    Rows of quick runs and of full ones are never shown together. Rows of a method that the experiment no longer has,
    and rows that were measured with another budget or other settings than it now has for the same method, seed,
    scenario and task, are left out.

    Args:
        name: of the experiment.
        folder: its records'.
        quick: show rows of quick runs, or of full ones; ``None``: full ones, if there are any.

    Raises:
        InputError: damaged records.
    """
    every = records.read(folder)
    rows = records.newest(every)
    left_out = {"measured again since": len(every) - len(rows)}
    if quick is None:
        quick = bool(rows) and all(row.about.get("quick") for row in rows)
    kind = [row for row in rows if bool(row.about.get("quick")) == quick]
    left_out["of full runs" if quick else "of quick runs"] = len(rows) - len(kind)
    experiment = load(name)
    current, methods = _current(experiment, kind, quick)
    keys = {row.case.key for row in current}
    outdated = [row for row in kind if row.case.key not in keys]
    left_out[UNKNOWN_METHOD] = sum(row.case.method not in methods for row in outdated)
    left_out[OTHER_SETTINGS] = len(outdated) - left_out[UNKNOWN_METHOD]
    left_out = {why: n for why, n in left_out.items() if n}
    return Shown(current, quick, _given_seeds(experiment, current, quick), left_out, outdated)


def _current(experiment: Any, rows: Sequence[Row], quick: bool) -> tuple[list[Row], set[str]]:
    """Rows that the experiment does not define differently now, in the order of its cases: tables compare neighbours,
    and on a cluster cases end in any order; and the methods that it has.
    """
    seeds = tuple(sorted({row.case.seed for row in rows}))
    cases: list[Case] = list(experiment.cases(quick=quick, seeds=seeds))
    others = {row.case.method for row in rows} - {case.method for case in cases}
    for method in sorted(others) if takes_methods(experiment) else ():
        try:
            cases += experiment.cases(quick=quick, seeds=seeds, methods=(method,))
        except InputError:  # the experiment no longer knows it
            continue
    keys = {key: k for k, key in enumerate(dict.fromkeys(case.key for case in cases))}
    methods = {case.method for case in cases}
    places = {_place(case) for case in cases}
    found = [
        row for row in rows if row.case.key in keys or (row.case.method in methods and _place(row.case) not in places)
    ]
    return sorted(found, key=lambda row: keys.get(row.case.key, len(keys))), methods


def _given_seeds(experiment: Any, rows: Sequence[Row], quick: bool) -> list[int]:
    """Seeds that measure the rows; cases may have others than the run was given, or the same whatever it was given."""
    seeds, keys = sorted({row.case.seed for row in rows}), {row.case.key for row in rows}
    of_seed = {s: {case.key for case in experiment.cases(quick=quick, seeds=(s,))} for s in seeds}
    alike = set.intersection(*of_seed.values()) if len(seeds) > 1 else set()
    return [s for s in seeds if (of_seed[s] - alike) & keys] or seeds


def _place(case: Case) -> tuple[str, int, str, str]:
    return case.method, case.seed, case.scenario, case.task
