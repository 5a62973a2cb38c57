"""A simulated day of traffic under an allocation policy, and the most that any policy could earn on it.

Every policy runs on its own copy of the clusters against the same arrivals. A policy decides with the values and costs
that it expects. What happens follows from the pool's true outcomes and measured costs.
Shapes: T minutes, M kinds of request, G clusters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import AllocationTable, MinuteOutcome
from marca_env.traffic.control import ControlObservation
from marca_env.traffic.dual_bound import dual_bound
from marca_env.traffic.policies import Policy
from marca_env.traffic.simulated_system import SimulatedSystem, SystemChanges
from marca_env.traffic.workload import Traffic
from marca_env.utils.units import SECONDS_PER_MINUTE

BOUND_MINUTES = 15
"""Minutes whose budgets the dual bound pools; pooling only raises the bound."""


def replay(
    policy: Policy,
    pool: RequestPool,
    traffic: Traffic,
    counts: np.ndarray,
    on_minute: Callable[[], None] | None = None,
    changes: SystemChanges | None = None,
) -> pd.DataFrame:
    """Run a policy over a day of traffic.

    Args:
        policy: chooses the joint actions.
        pool: kinds of request with their true outcomes and costs.
        traffic: mean rate of each minute.
        counts: (T,M) arrivals.
        on_minute: called after each minute.
        changes: changes of the clusters.

    Returns:
        A row per minute: minute, qps, requests, the outcomes, with a latency limit ``latency_p50``, ``latency_p99``
        (seconds) and ``late`` (share), and per cluster load (Ĉ, undegraded, core-seconds per
        second), budget, price, degradation (level in force), backlog (seconds) and dropped (share).
    """
    system = SimulatedSystem(pool, traffic, counts, changes)
    prices = policy.begin(system.clusters.budgets, float(traffic.qps[0]), pool.probabilities(traffic.minute_of_day(0)))
    before = traffic.qps[0] if traffic.history is None or len(traffic.history) == 0 else traffic.history[-1]
    observation, rows = system.start(prices, qps=float(before)), []
    for minute in range(len(traffic)):
        actions, prices = policy.choose(observation, system.possible_requests)
        outcome, observation = system.serve(actions, prices)
        rows.append(_row(pool.scenario.cluster_names, minute, outcome, observation))
        if on_minute:
            on_minute()
    return pd.DataFrame(rows)


def _row(
    clusters: tuple[str, ...], minute: int, outcome: MinuteOutcome, observation: ControlObservation
) -> dict[str, float]:
    """Return the row of a minute from its outcome and the telemetry after it."""
    row: dict[str, float] = {"minute": minute, "qps": outcome.qps, "requests": outcome.requests, **outcome.outcomes}
    if outcome.latency is not None:
        row |= {"latency_p50": outcome.latency.p50, "latency_p99": outcome.latency.p99, "late": outcome.latency.late}
    for g, name in enumerate(clusters):
        row[f"load_{name}"] = observation.load[g]
        row[f"budget_{name}"] = observation.budget[g]
        row[f"price_{name}"] = observation.prices[g]
        row[f"degradation_{name}"] = int(outcome.degradation[g])
        row[f"backlog_{name}"] = observation.backlog[g]
        row[f"dropped_{name}"] = outcome.reading.dropped[g]
    return row


def clairvoyant_bound(pool: RequestPool, counts: np.ndarray, changes: SystemChanges | None = None) -> float:
    """Return an upper bound on the revenue of any policy that knows the whole day (Eq. 2–5, arXiv 2512.24325).

    Args:
        pool: kinds of request with their true outcomes and costs.
        counts: (T,M) arrivals.
        changes: changes of the clusters.
    """
    changes = changes or SystemChanges.none(len(counts), len(pool.scenario.clusters))
    table, total = AllocationTable.of_pool(pool), 0.0
    for start in range(0, len(counts), BOUND_MINUTES):
        part = slice(start, start + BOUND_MINUTES)
        block = counts[part].sum(axis=0)
        rows = np.flatnonzero(block)
        if len(rows):
            # the block's least cost, which only raises the bound
            budget = (
                pool.scenario.budgets
                * SECONDS_PER_MINUTE
                * changes.capacity[part].sum(axis=0)
                / changes.cost[part].min(axis=0)
            )
            total += dual_bound(table.values[rows], table.costs[rows], block[rows], budget, tolerance=1e-4)[0]
    return total
