"""Steps and request outcomes per second of the environments, beside public ones; cost by stages, actions and batch.

All rates of a comparison are measured in turn, round after round, so that other programs on the machine disturb them
alike; each is the median of its rounds. An outcome is one request served by the engine, with all its (request, action)
pairs in the prediction cache, as in training. A step of a batch of B counts B. The public environments are mpe2's
simple_spread (three agents) and, where vmas is installed, VMAS's batched one. Seconds are those of one process with the
threads that torch and numpy use by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.experiments.environment.rates import measure_rates
from benchmarks.experiments.environment.sizes import cost_by_size, peak_memory, with_options
from benchmarks.experiments.environment.workloads import compared_workloads
from benchmarks.suite.api import Case, Row
from marca_env.models.engine import Engine

ALONE = True
SEEDS = (0,)
RATES, MEMORY, STAGES, ACTIONS = "rates", "memory", "stages", "actions"
BUDGET, QUICK_BUDGET = {"rounds": 5, "seconds": 0.3}, {"rounds": 2, "seconds": 0.01}
BATCHES, QUICK_BATCHES = (1, 64, 4096), (1, 64)
SIZES = {STAGES: tuple(range(2, 11)), ACTIONS: (4, 6, 10)}
"""Numbers of stages; options of each of five decisions: 1,024, 7,776 and 100,000 joint actions."""
QUICK_SIZES = {STAGES: (2, 3), ACTIONS: (4,)}
TARGETS = {"outcomes, B = 4096": 500_000, "PettingZoo Parallel": 5_000, "PettingZoo AEC": 5_000}
"""Rates to reach, per second."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return a case for the rates, one for the memory, and one for each way to grow."""
    budget, sizes = (QUICK_BUDGET, QUICK_SIZES) if quick else (BUDGET, SIZES)
    batches = {"batches": list(QUICK_BATCHES if quick else BATCHES)}
    return [
        case
        for seed in seeds
        for case in (
            Case(RATES, seed, budget=budget, config=batches),
            Case(MEMORY, seed, scenario="ranking-model-v0", config=batches),
            *(Case(way, seed, budget=budget, config={"sizes": list(values)}) for way, values in sizes.items()),
        )
    ]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Measure rates, memory, or the cost by size.

    Returns:
        ``rows``: of the rates ``what``, ``per_second`` as [median, lowest, highest] and ``aim``; of the memory bytes
        by batch; otherwise microseconds of an episode in a batch of 64 and of a choice among all joint actions.
    """
    if case.method == RATES:
        rates = measure_rates(compared_workloads(case.config["batches"], case.seed), **case.budget)
        return {"rows": [{**row, "aim": TARGETS.get(row["what"])} for row in rates]}
    if case.method == MEMORY:
        return {"rows": [peak_memory(batch, case.seed, case.scenario) for batch in case.config["batches"]]}
    return {"rows": cost_by_size(_engines(case.method, case.config["sizes"]), seed=case.seed, **case.budget)}


def _engines(way: str, sizes: Sequence[int]) -> dict[str, Engine]:
    """Return the engines of growing scenarios by the words that the table shows."""
    if way == STAGES:
        return {f"{n} stages": Engine.load(f"stages-{n}-v0") for n in sizes}
    return {f"{n}⁵ actions": with_options(n) for n in sizes}


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return rates, memory, and cost by size."""
    for row in rows:
        numbers = row.numbers["rows"]
        if row.case.method == RATES:
            yield _rates_table(numbers, row.case.budget["rounds"])
        elif row.case.method == MEMORY:
            yield _memory_table(numbers)
        else:
            yield _size_table(row.case.method, numbers)


def _rates_table(rows: Sequence[dict[str, Any]], rounds: int) -> Table:
    title = f"per second: median of {rounds} interleaved rounds (lowest … highest)"
    table = Table("what", "per second", "target", title=title)
    for row in rows:
        middle, low, high = (f"{v:,.0f}" for v in row["per_second"])
        table.add_row(row["what"], f"{middle} ({low} … {high})", f"{row['aim']:,}" if row["aim"] else "")
    return table


def _memory_table(rows: Sequence[dict[str, Any]]) -> Table:
    columns = "sub-environments", "peak of an episode, bytes", "per sub-environment"
    table = Table(*columns, title="memory, without models")
    for row in rows:
        table.add_row(f"{row['batch']:,}", f"{row['peak']:,}", f"{row['peak'] / row['batch']:,.0f}")
    return table


def _size_table(way: str, rows: Sequence[dict[str, Any]]) -> Table:
    columns = "joint actions", "episode, µs per request", "per decision", "argmax over all, µs per request"
    table = Table(way, *columns, title="cost by size, batch of 64")
    for row in rows:
        cells = f"{row['episode_us']:.1f}", f"{row['decision_us']:.2f}", f"{row['argmax_us']:.1f}"
        table.add_row(row["what"], f"{row['joint_actions']:,}", *cells)
    return table
