"""The model-predictive balancer under random faults of telemetry, forecast and solver: does it always set a price?"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.days.telemetry import fit_system_model, shipped_pool
from benchmarks.experiments.balancing_faults.closed_loop import run_with_faults
from benchmarks.experiments.balancing_faults.faults import CHANCE, SPELL
from benchmarks.suite.api import Case, Row
from marca_env.models.request_pool import RequestPool
from mpc import SystemModel

ALONE = True
SEEDS = (0, 1)
STEPS, QUICK_STEPS = 50_000, 750
"""Minutes of a run with faults."""
CALM_STEPS = 2_880
"""Largest number of minutes of the run without faults."""
REQUESTS = 120
EPOCHS, QUICK_EPOCHS = 150, 30
METHOD = "MPC"
FAULTS, NO_FAULTS = "random faults", "no faults"


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return a run with faults for each seed, and one without faults for comparison."""
    steps = QUICK_STEPS if quick else STEPS
    settings = {"requests": REQUESTS, "epochs": QUICK_EPOCHS if quick else EPOCHS, "spell": SPELL}
    faulty = [
        Case(METHOD, seed, task=FAULTS, budget={"steps": steps}, config={**settings, "chance": CHANCE})
        for seed in seeds
    ]
    budget = {"steps": min(steps, CALM_STEPS)}
    return [*faulty, Case(METHOD, seeds[0], task=NO_FAULTS, budget=budget, config={**settings, "chance": 0.0})]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Run the closed loop of the shipped scenario; see :func:`run_with_faults`."""
    pool, model = _system(case.config["requests"], case.config["epochs"])
    log = logging.getLogger("mpc")
    level_before = log.level
    log.setLevel(logging.CRITICAL)  # thousands of faults are intended here, and they are counted
    try:
        return run_with_faults(
            pool, model, case.budget["steps"], case.seed, case.config["chance"], case.config["spell"]
        )
    finally:
        log.setLevel(level_before)


@cache
def _system(requests: int, epochs: int) -> tuple[RequestPool, SystemModel]:
    pool = shipped_pool(requests)
    return pool, fit_system_model(pool, epochs=epochs)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return violations and shares of every run, then where the prices of disturbed minutes came from."""
    faulty = [row for row in rows if row.case.task == FAULTS]
    yield _runs_table(rows, sum(row.numbers["steps"] for row in faulty))
    if faulty:
        yield _events_table(faulty)


def _runs_table(rows: Sequence[Row], steps: int) -> Table:
    table = Table(title=f"{steps:,} control steps under random faults")
    for column in (
        "run",
        "violations",
        "late prices",
        "late plans",
        "planned again after",
        "events",
        "μ",
        "ν",
        "median step",
        "longest",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = row.numbers
        shares = [" / ".join(f"{x:.2%}" for x in numbers[k]) for k in ("utilisation", "overutilisation")]
        table.add_row(
            f"seed {row.case.seed}" if row.case.task == FAULTS else NO_FAULTS,
            str(sum(numbers["violations"].values())),
            str(numbers["late"]),
            str(numbers["late_plans"]),
            ", ".join(f"{m} min: {n:,}" for m, n in sorted(numbers["replanned"].items(), key=lambda x: int(x[0]))),
            f"{sum(numbers['events'].values()):,}",
            *shares,
            f"{1e3 * numbers['median_seconds']:.1f} ms",
            f"{numbers['longest_seconds']:.2f} s",
        )
    return table


def _events_table(rows: Sequence[Row]) -> Table:
    table = Table(title="events, and where the price of that minute came from")
    for column in ("kind", "plan", "feedback", "held"):
        table.add_column(column, justify="right")
    events = Counter[str]()
    for row in rows:
        events.update(row.numbers["events"])
    for kind in sorted({name.split("/")[0] for name in events}):
        table.add_row(kind, *(f"{events[f'{kind}/{source}']:,}" for source in ("plan", "feedback", "held")))
    return table
