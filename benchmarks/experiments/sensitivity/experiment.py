"""What γ and K do to AWRQ-Mixer, and α, β and N to the model-predictive controller; one varied at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from benchmarks.experiments.balancing import experiment as balancing
from benchmarks.experiments.ranking import experiment as ranking
from benchmarks.offline.offline_runs import settings_of
from benchmarks.offline.offline_tables import interval, score_table
from benchmarks.suite.api import Case, Row

if TYPE_CHECKING:
    from rich.table import Table

SEEDS = ranking.SEEDS
METHOD = "AWRQMixer"
VALUES: dict[str, tuple[float, ...]] = {"gamma": (0.7, 0.8, 0.9, 0.99), "heads": (1, 5, 20, 100)}
"""Of the learner: γ and K, the paper's values without K = 200."""
SWEEP: dict[str, tuple[float, ...]] = {"alpha": (0.2, 0.4, 0.8), "beta": (0.0, 2.0, 8.0), "horizon": (5, 10, 20)}
"""Of the controller."""
SWEPT, SWEPT_MINUTES = ("flash-sale", "smooth"), 300
FIRST_DAY = 100
"""Seed of the first day that the controller's settings are varied on: such days judge nothing else."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Every value with every seed: the other settings are those of the ranking."""
    settings = settings_of(METHOD)
    found = []
    for name, values in VALUES.items():
        for value in values[:1] if quick else values:
            changed = {**settings, name: value}
            found += [ranking.case_of(METHOD, s, changed, quick=quick, task=f"{name}={value}") for s in seeds]
    return found + _controller_cases(quick, seeds)


def _controller_cases(quick: bool, seeds: Sequence[int]) -> list[Case]:
    chosen = [{name: value} for name, values in SWEEP.items() for value in values]
    minutes = 20 if quick else SWEPT_MINUTES
    return [
        balancing.case_of("mpc", FIRST_DAY + seed, day, minutes, quick=quick, settings=settings)
        for day in SWEPT[: 1 if quick else None]
        for seed in seeds
        for settings in (chosen[:1] if quick else chosen)
    ]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """As the ranking, or as the balancing, does."""
    return (ranking if case.method == METHOD else balancing).measure(case, folder)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """A line for each value."""
    if learnt := [row for row in rows if row.case.method == METHOD]:
        yield score_table(learnt, "sensitivity to γ and K", "value")
    if controlled := [row for row in rows if row.case.method != METHOD]:
        yield _controller_table(controlled)


def _controller_table(rows: Sequence[Row]) -> Table:
    table = Table(title="sensitivity of the MPC to α, β and N: interquartile mean over seeds [95 % interval]")
    for column in ("day", "setting", "seeds", "μ, %", "ν, %", "of the bound, %"):
        table.add_column(column, justify="left" if column in ("day", "setting") else "right")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        told = ", ".join(f"{name}={value:g}" for name, value in row.case.config["settings"].items())
        groups.setdefault((row.case.task, told), []).append(row)
    for (day, told), group in groups.items():
        mu, nu = (np.array([100 * r.numbers[name]["all"] for r in group]) for name in ("mu", "nu"))
        share = np.array([100 * r.numbers["bound_share"] for r in group])
        table.add_row(day, told, str(len(group)), interval(mu, 2), interval(nu, 2), interval(share, 2))
    return table
