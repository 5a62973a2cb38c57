"""Nine methods from the same request log: r_s and Return% by the ensemble, as published, and by the live cascade."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.offline_runs import METHODS, REQUESTS
from benchmarks.suite import Case, Row

if TYPE_CHECKING:
    from rich.table import Table

SEEDS = (0, 1, 2, 3, 4)
BUDGET = {"updates": 1000, "batch": 512}
QUICK_BUDGET = {"updates": 40, "batch": 256}
QUICK_REQUESTS = 60
VALIDATE_EVERY = 100
"""Updates between validations."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS, methods: Sequence[str] | None = None) -> list[Case]:
    """Every method with every seed; ``methods`` may name configurations by their dotted paths."""
    from benchmarks.offline_runs import settings_of

    chosen = methods or (METHODS[-2:] if quick else METHODS)
    return [case_of(method, seed, settings_of(method), quick=quick) for method in chosen for seed in seeds]


def case_of(method: str, seed: int, settings: Mapping[str, Any], *, quick: bool, task: str = "") -> Case:
    """A training with the budget of all, judged as all."""
    config = {"settings": dict(settings), "requests": QUICK_REQUESTS if quick else REQUESTS}
    return Case(method, seed, task=task, budget=QUICK_BUDGET if quick else BUDGET, config=config)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train and judge; see :func:`benchmarks.offline_runs.run_offline`."""
    from benchmarks.offline_runs import run_offline

    return run_offline(
        case.method,
        case.seed,
        settings=case.config["settings"],
        requests=case.config["requests"],
        validate_every=VALIDATE_EVERY,
        **case.budget,
    )


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Scores by each truth; then AWRQ-Mixer against each of the others."""
    from benchmarks.offline_tables import against, score_table

    yield score_table(rows, "ranking", "method")
    yield from against(rows, "AWRQMixer")


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Validation curves."""
    from benchmarks.offline_tables import curves_figure

    return {"Ranking during training": curves_figure(rows, folder / "curves.png")}
