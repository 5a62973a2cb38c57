"""AWRQMixerV2 without each of its parts, and with parts that it leaves out, on every task of the suite.

Budget, settings, judge and scores are those of ``tasks``, without a search: all variants have the options of its first
trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.evaluation.statistics import iqm, iqm_interval, probability_of_improvement
from benchmarks.experiments.tasks import experiment as leaderboard
from benchmarks.experiments.tasks.learner import train_learner
from benchmarks.experiments.tasks.scores import TaskScores
from benchmarks.experiments.tasks.settings import REFERENCES
from benchmarks.suite.api import Case, Row

METHOD = "AWRQMixerV2"
FULL = "full"
VARIANTS: dict[str, dict[str, Any]] = {
    FULL: {},
    "no residual": {"mixer": "additive"},
    "residual at every step": {"mixer": "resq"},
    "no baseline, no residual": {"residual_mixer": False},
    "monotone mixer": {"mixer": "absolute", "mixer_activation": "elu"},
    "duplex mixer": {"mixer": "qplex"},
    "no mixing of its own": {"own_information_mixing": False},
    "values of waiting agents": {"waiting_values": "carried"},
    "values within a round of turns": {"waiting_values": "round"},
    "no advantage weights": {"advantage_weighting": False},
    "one-step targets": {"lambda_returns": False},
    "newest weights decide": {"averaged_policy": False},
    "with five heads": {"ensemble": True, "disagreement_weighting": True},
    "with credit": {"credit_weighting": True},
}
"""Variant → options that differ from the preset."""
SEEDS = leaderboard.SEEDS
SIDE_BY_SIDE = True
ALONE = True


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS, tasks: Sequence[str] | None = None) -> list[Case]:
    """Return the references of each task, then every variant with every seed.

    Args:
        quick: a small run of two variants.
        seeds: of the training.
        tasks: ids of the suite; ``None``: those that this version has.

    Raises:
        InputError: an unknown task.
    """
    found = []
    for case in leaderboard.cases(quick=quick, seeds=seeds, methods=[METHOD], tasks=tasks):
        if case.method in REFERENCES:
            found.append(case)
            continue
        budget = {name: value for name, value in case.budget.items() if name != "trials"}
        config = {name: value for name, value in case.config.items() if name != "spaces"}
        for variant, options in list(VARIANTS.items())[: 2 if quick else None]:
            config |= {"variant": variant, "options": options}
            found.append(replace(case, budget=budget, config=dict(config)))
    return found


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train a variant or compute a reference; see :func:`benchmarks.experiments.tasks.experiment.measure`."""
    if case.method in REFERENCES:
        return leaderboard.measure(case, folder)
    return train_learner(case, case.config["options"], seed=case.seed)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return the scores of the variants by task, and whether the full preset scores higher than each."""
    found = TaskScores([_by_variant(row) for row in rows])
    if not found.tasks:
        return
    ordered = [variant for variant in VARIANTS if variant in found.methods]
    table = Table(
        title=f"{METHOD} and its variants: score, IQM over seeds (0 best static action, 1 bound of joint decisions)",
        title_justify="left",
        caption=f"P: probability that a run of the full preset scores higher; 95 % intervals of a bootstrap over "
        f"{len(found.tasks)} tasks and seeds.",
        caption_justify="left",
    )
    for name in ("variant", *found.tasks, "all", "95 %", "P(full over it)", "95 %"):
        table.add_column(name, justify="left" if name == "variant" else "right", no_wrap=True)
    for variant in ordered:
        table.add_row(variant, *_cells(found, variant))
    yield table


def _cells(found: TaskScores, variant: str) -> list[str]:
    by_task = [found.scores(task, variant) for task in found.tasks]
    cells = [f"{iqm(scores):.3f}" if len(scores) else "–" for scores in by_task]
    if not all(map(len, by_task)):
        return [*cells, "–", "–", "–", "–"]
    scores = found.table(variant)
    low, high = iqm_interval(scores)
    cells += [f"{iqm(scores):.3f}", "–" if np.isnan(low) else f"[{low:.3f}, {high:.3f}]"]
    if variant == FULL or FULL not in found.complete():
        return [*cells, "–", "–"]
    value, low, high = probability_of_improvement(found.table(FULL), scores)
    return [*cells, f"{value:.2f}", "–" if np.isnan(low) else f"[{low:.2f}, {high:.2f}]"]


def _by_variant(row: Row) -> Row:
    """Return the row with its variant as the method."""
    config: Mapping[str, Any] = row.case.config
    return replace(row, case=replace(row.case, method=config["variant"])) if "variant" in config else row
