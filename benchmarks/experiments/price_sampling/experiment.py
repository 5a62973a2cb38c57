"""Prices of computation from a sample of a period's requests: revenue lost against the prices of all requests.

The prices are the minimiser of the dual (:func:`marca_env.traffic.dual_bound.dual_bound`), the only state that the
allocation of a whole period shares. Requests are drawn from the population of the default scenario; values and costs
are the fitted models'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.experiments.price_sampling.next_minute import MINUTES, SAMPLES, Day, Sample
from benchmarks.suite.api import Case, Row
from marca_env.models.engine import Engine
from marca_env.models.request_pool import TIME_FEATURE, distinct_columns
from marca_env.traffic.allocation import allocate
from marca_env.traffic.dual_bound import dual_bound
from marca_env.traffic.workload import daily_traffic
from marca_env.utils.units import MINUTES_PER_DAY, SECONDS_PER_MINUTE

SEEDS = (0, 1, 2, 3, 4)
PERIODS = {"minute": 1, "hour": 60, "day": MINUTES_PER_DAY}
"""Period that has one price for each cluster → its minutes, those with the most requests of a generated day."""
SHARES = (1.0, 0.1, 0.01, 0.001)
FULL, QUICK = {"states": 3600}, {"states": 60}
"""Most frequent states of the population, from which requests are drawn."""

_HALVINGS = 25  # of the interval of the factor


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return every period and share of its requests, and the coming minute with every sample of earlier ones."""
    budget = QUICK if quick else FULL
    within = [
        Case(f"{share:.1%} of the requests", seed, task=period, budget=budget, config={"share": share})
        for period in PERIODS
        for share in SHARES
        for seed in seeds
    ]
    before = [
        Case(sample.name, seed, task=task, budget=budget, config=asdict(sample))
        for task in MINUTES
        for sample in SAMPLES
        for seed in seeds
    ]
    return within + before


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Solve the prices on a sample and allocate all requests of the period under them.

    Returns:
        ``requests`` of the period and ``sampled``; ``loss``: 1 − revenue / bound, where the revenue is that within the
        budgets (:func:`revenue_within`) and the bound is the dual's of all requests; ``overuse``: largest use of a
        cluster beyond its budget before requests are taken back, as a fraction of the budget (negative: unused).
    """
    if case.task in MINUTES:
        return _measure_next_minute(case)
    values, costs, probabilities, _ = _table(case.budget["states"])
    rng = np.random.default_rng(case.seed)
    scenario = Engine.load("default").scenario
    qps = np.convolve(daily_traffic(scenario, rng).qps, np.ones(PERIODS[case.task]), "valid").max()
    counts = rng.multinomial(round(60 * float(qps)), probabilities)
    budgets = scenario.budgets * 60 * PERIODS[case.task]
    sampled = rng.binomial(counts, case.config["share"])
    return _loss(values, costs, counts, sampled, budgets)


def _measure_next_minute(case: Case) -> dict[str, Any]:
    values, costs, probabilities, windows = _table(case.budget["states"])
    scenario = Engine.load("default").scenario
    n_windows = next(feature.size for feature in scenario.features if feature.name == TIME_FEATURE)
    day = Day(scenario, probabilities, windows, n_windows, case.seed)
    minute = day.minute_of(str(case.task))
    counts = day.draw(minute)
    return _loss(
        values, costs, counts, day.sample(Sample(**case.config), minute), scenario.budgets * SECONDS_PER_MINUTE
    )


def _loss(
    values: np.ndarray, costs: np.ndarray, counts: np.ndarray, sampled: np.ndarray, budgets: np.ndarray
) -> dict[str, Any]:
    """Return the numbers of :func:`measure` for requests (M,) and a sample (M,); the number of requests is known."""
    prices = dual_bound(values, costs, sampled, budgets * sampled.sum() / counts.sum())[1]
    revenue, use = revenue_within(values, costs, counts, budgets, prices)
    bound = dual_bound(values, costs, counts, budgets)[0]
    return {
        "requests": int(counts.sum()),
        "sampled": int(sampled.sum()),
        "loss": 1.0 - revenue / bound,
        "overuse": float((use / budgets).max() - 1.0),
    }


def revenue_within(
    values: np.ndarray, costs: np.ndarray, counts: np.ndarray, budgets: np.ndarray, prices: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the revenue of a period within its budgets under given prices.

    If the requests use more than a budget, all prices are raised by the smallest factor with which they fit, as a
    controller of the load would do, and the last step of it is applied to a share of the requests. Budget that the
    prices leave unused stays unused.

    Args:
        values: (M,J) currency per request.
        costs: (M,J,G) core-seconds per request.
        counts: (M,) requests of each kind.
        budgets: (G,) core-seconds in the period.
        prices: (G,) currency per core-second.

    Returns:
        The revenue, and what the requests use under the prices as given, (G,) core-seconds.
    """

    def serve(factor: float) -> tuple[float, np.ndarray]:
        rows, actions = np.arange(len(values)), allocate(values, costs, factor * prices)
        return float(counts @ values[rows, actions].astype(float)), counts @ costs[rows, actions].astype(float)

    earned, use = serve(1.0)
    if (use <= budgets).all():
        return earned, use
    low, high = 1.0, 2.0
    while (serve(high)[1] > budgets).any() and high < 1e6:
        low, high = high, 2.0 * high
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if (serve(middle)[1] > budgets).any() else (low, middle)
    (much, too_much), (less, fits) = serve(low), serve(high)
    over = too_much > budgets
    share = float(((too_much - budgets)[over] / (too_much - fits)[over]).max(initial=0.0))
    return (1.0 - share) * much + share * less, use


@lru_cache(maxsize=1)
def _table(states: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return values (M,J), costs (M,J,G), probabilities (M,) and time windows (M,) of the most frequent states."""
    engine = Engine.load("default")
    order = np.argsort(-engine.population.counts, kind="stable")[:states]
    values, costs = engine.table(engine.population.states[order])
    actions = distinct_columns(engine.scenario, values, costs)[0]
    counts = engine.population.counts[order]
    windows = engine.population.states[order, engine.scenario.state_columns.index(TIME_FEATURE)]
    return values[:, actions], costs[:, actions], counts / counts.sum(), windows


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return mean, standard deviation over the seeds and largest loss for each period and share."""
    table = Table(title="revenue lost by prices of a sample, within the same budgets")
    for column in ("period", "sample", "seeds", "requests", "sampled", "loss", "± sd", "largest", "beyond the budget"):
        table.add_column(column, justify="left" if column in ("period", "sample") else "right")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.case.task, row.case.method), []).append(row)
    for (period, method), ours in groups.items():
        means = {k: float(np.mean([row.numbers[k] for row in ours])) for k in ("requests", "sampled", "overuse")}
        losses = [row.numbers["loss"] for row in ours]
        spread = f"{np.std(losses, ddof=1):.4%}" if len(losses) > 1 else "–"
        counts = (f"{means[k]:,.0f}" for k in ("requests", "sampled"))
        shares = f"{np.mean(losses):.4%}", spread, f"{max(losses):.4%}", f"{means['overuse']:.3%}"
        table.add_row(period, method, str(len(ours)), *counts, *shares)
    yield table
