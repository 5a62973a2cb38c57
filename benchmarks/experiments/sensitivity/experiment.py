"""Effect of γ and K on AWRQ-Mixer, and of α, β and N on the model-predictive controller, varied one at a time.

γ is the discount factor, K the number of heads; α is the discount of later minutes, β the weight of overload,
N the horizon in minutes (Eq. 17, arXiv 2512.24325).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.experiments.balancing import experiment as balancing
from benchmarks.offline.offline_cases import SEEDS, measure_offline, offline_case
from benchmarks.offline.offline_runs import tuned_settings
from benchmarks.offline.offline_tables import interval, score_table
from benchmarks.suite.api import Case, Row

METHOD = "AWRQMixer"
VALUES: dict[str, tuple[float, ...]] = {"gamma": (0.7, 0.8, 0.9, 0.99), "heads": (1, 5, 20, 100)}
"""Values of the learner's γ and K: those of the paper without K = 200."""
SWEEP: dict[str, tuple[float, ...]] = {"alpha": (0.2, 0.4, 0.8), "beta": (0.0, 2.0, 8.0), "horizon": (5, 10, 20)}
"""Values of the controller's α, β and N."""
SWEPT, SWEPT_MINUTES = ("flash-sale", "smooth"), 300
FIRST_DAY = 100
"""Seed of the first day on which the controller's settings are varied; these days are used for nothing else."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return every value with every seed; the other settings are those of the ranking."""
    settings = tuned_settings(METHOD)
    learner_cases = []
    for name, values in VALUES.items():
        for value in values[:1] if quick else values:
            changed = {**settings, name: value}
            task = f"{name}={value}"
            learner_cases += [offline_case(METHOD, seed, changed, quick=quick, task=task) for seed in seeds]
    return learner_cases + _controller_cases(quick, seeds)


def _controller_cases(quick: bool, seeds: Sequence[int]) -> list[Case]:
    variants = [{name: value} for name, values in SWEEP.items() for value in values]
    minutes = 20 if quick else SWEPT_MINUTES
    return [
        balancing.balancing_case("mpc", FIRST_DAY + seed, day, minutes, quick=quick, settings=settings)
        for day in SWEPT[: 1 if quick else None]
        for seed in seeds
        for settings in (variants[:1] if quick else variants)
    ]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train the learner as the ranking does, or run the controller as the balancing does."""
    return measure_offline(case) if case.method == METHOD else balancing.measure(case, folder)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return a line for each value, of the learner and of the controller."""
    if learner_rows := [row for row in rows if row.case.method == METHOD]:
        yield score_table(learner_rows, "sensitivity to γ and K", "value")
    if controller_rows := [row for row in rows if row.case.method != METHOD]:
        yield _controller_table(controller_rows)


def _controller_table(rows: Sequence[Row]) -> Table:
    table = Table(title="sensitivity of the MPC to α, β and N: interquartile mean over seeds [95 % interval]")
    for column in ("day", "setting", "seeds", "μ, %", "ν, %", "of the bound, %"):
        table.add_column(column, justify="left" if column in ("day", "setting") else "right")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        setting = ", ".join(f"{name}={value:g}" for name, value in row.case.config["settings"].items())
        groups.setdefault((row.case.task, setting), []).append(row)
    for (day, setting), group in groups.items():
        mu, nu = (np.array([100 * r.numbers[name]["all"] for r in group]) for name in ("mu", "nu"))
        share = np.array([100 * r.numbers["bound_share"] for r in group])
        table.add_row(day, setting, str(len(group)), interval(mu, 2), interval(nu, 2), interval(share, 2))
    return table
