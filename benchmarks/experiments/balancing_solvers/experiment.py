"""Ways to minimise Eq. 17 on the same states and model: objective reached, time per control step, growth with size.

Equations are those of arXiv 2512.24325. All methods of a comparison plan in turn, state by state.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from benchmarks.days.telemetry import shipped_pool, system_log
from benchmarks.experiments.balancing_solvers import report_tables
from benchmarks.experiments.balancing_solvers.comparison import (
    all_methods,
    compare,
    main_methods,
    price_limits,
    shooting_methods,
)
from benchmarks.experiments.balancing_solvers.far_states import compare_far, summarise_far
from benchmarks.experiments.balancing_solvers.growth import compare_generated
from benchmarks.experiments.balancing_solvers.published_shooting import WideNetwork
from benchmarks.experiments.balancing_solvers.solver_states import State, collect_states
from benchmarks.experiments.balancing_solvers.step_parts import step_parts
from benchmarks.suite.api import Case, Row
from mpc import SystemModel
from mpc.planning.planning_method import PlannerSettings

ALONE = True
SEEDS = (0,)
METHOD = "methods in turn"
ALL, SHOOTING, PARTS_OF_STEP = "Eq. 17", "100-sample random shooting", "parts of a step"
READINGS: dict[str, dict[str, Any]] = {
    "damping by the last load": {"damping": "measured"},
    "critical threshold 44/46": {"threshold": 44 / 46},
}
"""Other readings of the paper → the planner's settings that differ."""
SYSTEM = {"requests": 240, "days": 4, "epochs": 150, "states": 200}
QUICK_SYSTEM = {"requests": 120, "days": 2, "epochs": 20, "states": 6}
"""The system whose states are planned for: its requests, the log and the fit of its model, and the number of states."""
READING_STATES, SHOOTING_STATES = 30, 20
"""Largest number of states of the smaller comparisons."""
HORIZON = 10
HORIZONS, CLUSTERS = (5, 10, 20, 40, 60), (1, 2, 5, 10, 20, 50)
QUICK_HORIZONS, QUICK_CLUSTERS = (5, 10), (1, 2, 5)
GROWTH_EPOCHS, QUICK_GROWTH_EPOCHS = 12, 3
OFF, THRESHOLDS, LOAD_ERRORS = (0.1, 0.3, 0.6), (1.0, 44 / 46), (0.0, 0.004)
"""States far from the budget: standard deviations of log load over budget, thresholds of damping, allowed errors."""
FAR_SEEDS, QUICK_FAR_SEEDS = (1, 2, 3), (1,)
"""Generated systems of these states. Settings were chosen on the systems 101 to 103."""
FAR, QUICK_FAR = {"epochs": 60, "states": 34}, {"epochs": 5, "states": 2}


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return the comparisons on states of the closed loop, then those on generated systems of growing size."""
    system = QUICK_SYSTEM if quick else SYSTEM
    tasks = (ALL, *READINGS, SHOOTING, PARTS_OF_STEP)
    settings = {task: {"horizon": HORIZON, **READINGS.get(task, {})} for task in tasks}
    horizons, clusters = (QUICK_HORIZONS, QUICK_CLUSTERS) if quick else (HORIZONS, CLUSTERS)
    return [
        *(Case(METHOD, seed, task=task, budget=system, config=settings[task]) for seed in seeds for task in tasks),
        *(_growth_case("horizon", n, 2, quick) for n in horizons),
        *(_growth_case("clusters", HORIZON, g, quick) for g in clusters),
        *_far_cases(quick),
    ]


def _far_cases(quick: bool) -> list[Case]:
    combinations = itertools.product(OFF, THRESHOLDS, LOAD_ERRORS, QUICK_FAR_SEEDS if quick else FAR_SEEDS)
    return [
        Case(
            METHOD,
            seed,
            "far",
            f"budget off by {off:.0%}, threshold {threshold:.3f}, allowed error {load_error:.1%}",
            QUICK_FAR if quick else FAR,
            {"off": off, "threshold": threshold, "load_error": load_error},
        )
        for off, threshold, load_error, seed in combinations
    ]


def _growth_case(grown: str, horizon: int, clusters: int, quick: bool) -> Case:
    budget = {
        "epochs": QUICK_GROWTH_EPOCHS if quick else GROWTH_EPOCHS,
        "repeats": 3 if quick or clusters >= 20 else 10,
    }
    task = f"growing {grown}: N = {horizon}, G = {clusters}"
    return Case(METHOD, 0, "generated", task, budget, {"horizon": horizon, "clusters": clusters})


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Compare the methods, or time the parts of a control step.

    Returns:
        ``states`` (their number) and ``methods`` (name → objective and times); of the parts of a step ``parts``
        (milliseconds) and ``matmul_seconds``; of a generated system the times and objectives of three methods; of
        states far from the budget those of :func:`compare_far`.
    """
    if case.scenario == "generated":
        return compare_generated(**case.config, **case.budget, seed=case.seed)
    if case.scenario == "far":
        return compare_far(**case.config, **case.budget, seed=case.seed)
    log, model = _system(case.seed, *(case.budget[name] for name in ("requests", "days", "epochs")))
    settings, states = PlannerSettings(**case.config), _states(case.seed, **case.budget)
    if case.task == PARTS_OF_STEP:
        return {
            "parts": step_parts(states[0], model, settings, price_limits(model)),
            "matmul_seconds": _matmul_seconds(),
        }
    if case.task == ALL:
        return _compared(states, all_methods(model, settings, case.seed))
    if case.task != SHOOTING:
        return _compared(states[:READING_STATES], main_methods(model, settings, case.seed))
    network = WideNetwork(log, model, case.seed)
    methods = shooting_methods(model, network, settings, case.seed)
    return {**_compared(states[:SHOOTING_STATES], methods), "network_error": network.error.tolist()}


def _compared(states: list[State], methods: Mapping[str, Any]) -> dict[str, Any]:
    return {"states": len(states), "methods": compare(states, methods)}


@lru_cache(maxsize=1)
def _system(seed: int, requests: int, days: int, epochs: int) -> tuple[pd.DataFrame, SystemModel]:
    """Return a system log of the default scenario and the model fitted on it."""
    pool = shipped_pool(requests)
    log = system_log(pool, days=days, seed=seed)
    return log, SystemModel.fit(log, clusters=pool.scenario.cluster_names, seed=seed, epochs=epochs)


@lru_cache(maxsize=1)
def _states(seed: int, requests: int, days: int, epochs: int, states: int) -> list[State]:
    _, model = _system(seed, requests, days, epochs)
    return collect_states(shipped_pool(requests), model, states, seed, HORIZON)


def _matmul_seconds() -> float:
    """Return the median seconds of a 500 × 500 product in double precision, as a measure of this machine."""
    a = np.ones((500, 500))
    times = []
    for _ in range(9):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return objective and time of every method, the parts of a step, and the growth."""
    for row in rows:
        if "methods" in row.numbers:
            yield report_tables.methods_table(row.case.task, row.numbers, HORIZON)
    for row in rows:
        if "parts" in row.numbers:
            yield report_tables.parts_table(row.numbers["parts"])
    if growth := [row.numbers for row in rows if row.case.scenario == "generated"]:
        yield report_tables.growth_table(growth)
    if far := [row for row in rows if row.case.scenario == "far"]:
        tasks = dict.fromkeys(row.case.task for row in far)
        yield report_tables.far_table(
            {task: summarise_far([dict(row.numbers) for row in far if row.case.task == task]) for task in tasks}
        )
