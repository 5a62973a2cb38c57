"""Nine methods from the same request log: r_s and Return% by the ensemble, as published, and by the live cascade."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.algorithms.presets import PRESETS
from benchmarks.offline.offline_runs import (
    METHODS,
    REFERENCES,
    REQUESTS,
    configuration,
    judged_reference,
    run_offline,
    settings_of,
)
from benchmarks.offline.offline_tables import against, curves_figure, grouped, score_table
from benchmarks.suite.api import Case, Row
from benchmarks.suite.user_methods import check_method_name

if TYPE_CHECKING:
    from rich.table import Table

SEEDS = (1, 2, 3, 4, 5)
"""None that the search of the settings trains with."""
BUDGET = {"updates": 1000, "batch": 512}
QUICK_BUDGET = {"updates": 40, "batch": 256}
QUICK_REQUESTS = 60
VALIDATE_EVERY = 100
"""Updates between validations."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS, methods: Sequence[str] | None = None) -> list[Case]:
    """The references, then every method with every seed; ``methods`` may name configurations by their dotted paths."""
    chosen = methods or (METHODS[-2:] if quick else METHODS)
    beside = [case_of(name, 0, {}, quick=quick) for name in REFERENCES]
    return beside + [case_of(method, seed, settings_of(method), quick=quick) for method in chosen for seed in seeds]


def case_of(method: str, seed: int, settings: Mapping[str, Any], *, quick: bool, task: str = "") -> Case:
    """A training with the budget of all, judged as all."""
    config = {"settings": dict(settings), "requests": QUICK_REQUESTS if quick else REQUESTS}
    return Case(method, seed, task=task, budget=QUICK_BUDGET if quick else BUDGET, config=config)


def check(case: Case) -> None:
    """Whether the method learns from the log.

    Raises:
        InputError: it does not, or there is none of that name.
    """
    if case.method in REFERENCES:
        return
    check_method_name(case.method, "ranking", PRESETS, "a configuration")
    configuration(case.method, case.seed, settings=case.config["settings"], **case.budget)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train and judge; see :func:`benchmarks.offline.offline_runs.run_offline`."""
    if case.method in REFERENCES:
        return {"test": judged_reference(case.method, case.seed, case.config["requests"])}
    return run_offline(
        case.method,
        case.seed,
        settings=case.config["settings"],
        requests=case.config["requests"],
        validate_every=VALIDATE_EVERY,
        **case.budget,
    )


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Scores by each truth; then AWRQ-Mixer, and every method of one's own, against each of the others."""
    yield score_table(rows, "ranking", "method")
    learnt = _learnt(rows)
    for method in grouped(learnt):
        if method == "AWRQMixer" or method not in METHODS:
            yield from against(learnt, method)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Validation curves."""
    learnt = _learnt(rows)
    return {"Ranking during training": curves_figure(learnt, folder / "curves.png")} if learnt else {}


def _learnt(rows: Sequence[Row]) -> list[Row]:
    """Those of the methods that are trained."""
    return [row for row in rows if row.case.method not in REFERENCES]
