"""Minutes to recover when ranking costs twice as much or a third of the machines is lost, with and without refits.

Feedback's gains and the margins of all balancers are tuned beforehand, without any change, on generated days on which
no seed runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.days.calibration import MARGINS, Calibration, gain_grid
from benchmarks.days.telemetry import fit_system_model, shipped_pool
from benchmarks.experiments.balancing_adaptation.adaptation_run import (
    ADAPTIVE,
    AFTER,
    BEFORE,
    FEEDBACK,
    HOLD,
    INFORMED,
    MEAN,
    METHODS,
    TOLERANCES,
    run_through_change,
)
from benchmarks.experiments.balancing_adaptation.changing_system import with_costs, with_machines
from benchmarks.experiments.balancing_adaptation.figure import adaptation_figure
from benchmarks.experiments.balancing_adaptation.report_tables import model_table, recovery_table
from benchmarks.suite.api import Case, Row, rows_by_method
from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from mpc import SystemModel

SEEDS = (0, 1, 2, 3, 4)
COSTLIER, FEWER = "ranking costs twice as much", "a third of the machines lost"
CHANGES = (COSTLIER, FEWER)
EFFORT = {"requests": 240, "epochs": 150, "tuning": 720}
QUICK_EFFORT = {"requests": 60, "epochs": 10, "tuning": 10}
"""Requests of the pool that is served, epochs of the system model's fit, and minutes of the days of tuning."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return each method through each change with each seed, on the same arrivals."""
    window = {"before": BEFORE, "after": AFTER, "mean": MEAN, "hold": HOLD, "tolerances": list(TOLERANCES)}
    budget = QUICK_EFFORT if quick else EFFORT
    return [
        Case(method, seed, task=change, budget=budget, config={**window, "tuned": _tuning_grid(method)})
        for change in CHANGES
        for seed in (seeds[:1] if quick else seeds)
        for method in METHODS
    ]


def _tuning_grid(method: str) -> dict[str, Any]:
    """Return the candidates among which :class:`benchmarks.days.calibration.Calibration` tunes a method."""
    return {"gains": [list(gains) for gains in gain_grid()]} if method == FEEDBACK else {"margins": list(MARGINS)}


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Run a method through a change; load and prices of every minute are saved in the folder for the figure."""
    requests, epochs = case.budget["requests"], case.budget["epochs"]
    newer = _model(requests, epochs, costlier=case.task == COSTLIER) if case.method == INFORMED else None
    before, after = _calibration(**case.budget), _pools(requests)[case.task][1]
    numbers, minutes = run_through_change(before, after, case.method, case.seed, newer)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(_minutes_file(folder, case), load=minutes["load"], prices=minutes["prices"])
    return numbers


def _minutes_file(folder: Path, case: Case) -> Path:
    return folder / f"{case.key}.npz"


@cache
def _pools(requests: int) -> dict[str, tuple[RequestPool, RequestPool]]:
    """Return change → the requests before it and after it."""
    pool = shipped_pool(requests)
    ranking = pool.scenario.cluster_names[-1]
    return {COSTLIER: (pool, with_costs(pool, ranking, 2.0)), FEWER: (pool, with_machines(pool, 2 / 3))}


@cache
def _model(requests: int, epochs: int, *, costlier: bool) -> SystemModel:
    """Fit a system model on days before any change, or on days of costlier ranking; once in a process.

    Budgets come with the telemetry, so that lost machines do not change the model.
    """
    return fit_system_model(_pools(requests)[COSTLIER][int(costlier)], epochs=epochs)


@cache
def _calibration(requests: int, epochs: int, tuning: int) -> Calibration:
    """Calibrate the balancers before any change; once in a process, so that all seeds share the tuned settings."""
    model = _model(requests, epochs, costlier=False)
    return Calibration(Engine.load("default"), requests=requests, tuning=tuning, given_model=model)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return the recovery and the hour after, by change and method; then the errors of the models."""
    for change in dict.fromkeys(row.case.task for row in rows):
        by_method = rows_by_method(row for row in rows if row.case.task == change)
        methods = {name: [row.numbers for row in group] for name, group in by_method.items()}
        yield recovery_table(change, methods)
        if ADAPTIVE in methods:
            yield model_table(change, methods[ADAPTIVE])


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw ``adaptation.png``: the minutes of the first seed whose minutes are in the folder, a column per change."""
    available = [row.case for row in rows if _minutes_file(folder, row.case).is_file()]
    shown: dict[str, Any] = {}
    for case in available:
        if case.seed == min(c.seed for c in available):
            with np.load(_minutes_file(folder, case)) as minutes:
                shown.setdefault(case.task, {})[case.method] = dict(minutes)
    if not shown:
        return {}
    path = folder / "adaptation.png"
    adaptation_figure(shown, Scenario.load("default").cluster_names, BEFORE, path)
    return {"Load against budget around a change, λ below": path}
