"""Nine methods that learn from the same request log: r_s and Return% by the ensemble and by the live cascade.

r_s is Spearman's rank correlation of Q values with true values; Return% is the revenue of the greedy allocation over
the best possible. The published evaluation is by the ensemble alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from agents.algorithms.presets import PRESETS
from benchmarks.offline.offline_cases import BUDGET, SEEDS, measure_offline, offline_case
from benchmarks.offline.offline_runs import METHODS, REFERENCES, offline_config, tuned_settings
from benchmarks.offline.offline_tables import curves_figure, difference_tables, group_rows, score_table
from benchmarks.suite.api import Case, Row
from benchmarks.suite.user_methods import check_method_name

__all__ = ["BUDGET", "METHODS", "SEEDS", "cases", "check", "figures", "measure", "tables"]


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS, methods: Sequence[str] | None = None) -> list[Case]:
    """Return the references, then every method with every seed.

    Args:
        quick: a small run.
        seeds: of the training.
        methods: presets, or the dotted paths of configurations; ``None``: all methods of the paper.
    """
    method_names = methods or (METHODS[-2:] if quick else METHODS)
    references = [offline_case(name, 0, {}, quick=quick) for name in REFERENCES]
    return references + [
        offline_case(method, seed, tuned_settings(method), quick=quick) for method in method_names for seed in seeds
    ]


def check(case: Case) -> None:
    """Check that a case's method learns from the log.

    Raises:
        InputError: the method is unknown, or does not learn from logs.
    """
    if case.method in REFERENCES:
        return
    check_method_name(case.method, "ranking", PRESETS, "a configuration")
    offline_config(case.method, case.seed, settings=case.config["settings"], **case.budget)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train and evaluate; see :func:`benchmarks.offline.offline_runs.run_offline`."""
    return measure_offline(case)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return the scores, then AWRQ-Mixer, and every method of a user, compared with each of the others."""
    yield score_table(rows, "ranking", "method")
    learners = _learners(rows)
    for method in group_rows(learners):
        if method == "AWRQMixer" or method not in METHODS:
            yield from difference_tables(learners, method)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw the validation curves."""
    learners = _learners(rows)
    return {"Ranking during training": curves_figure(learners, folder / "curves.png")} if learners else {}


def _learners(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of methods that are trained."""
    return [row for row in rows if row.case.method not in REFERENCES]
