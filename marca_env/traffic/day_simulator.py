"""A day of traffic, minute by minute, under an allocation policy.

Every policy runs its own copy of the clusters against the same arrivals. A policy decides with what it believes
(its own values and predicted costs); what happens is read from the pool's true outcomes and measured costs.
Shapes: T minutes, M kinds of request, J joint actions, G clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from marca_env.models.request_pool import RequestPool
from marca_env.scenario.encoding import InputEncoder
from marca_env.traffic.allocation import MinuteOutcome, allocate, arrivals, serve_minute
from marca_env.traffic.clusters import ClusterModel, ClusterState, ControlObservation
from marca_env.traffic.dual_bound import dual_bound
from marca_env.traffic.workload import Traffic

SECONDS = 60.0
BOUND_MINUTES = 15
"""The dual bound pools the budget of so many minutes, which only raises it."""


class Balancer(Protocol):
    """Whatever sets prices: see :mod:`mpc`."""

    def update(self, observation: ControlObservation) -> np.ndarray: ...

    def reset(self) -> None: ...


class Policy(Protocol):
    """Chooses a joint action for every kind of request, once a minute."""

    name: str

    def begin(self, pool: RequestPool, traffic: Traffic, first: np.ndarray) -> np.ndarray:
        """Start a day whose first minute has ``first`` (M,) chances; returns prices (G,) to start from."""
        ...

    def choose(self, observation: ControlObservation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joint actions (len(rows),) for the kinds ``rows`` that can come this minute, and the prices (G,)."""
        ...


@dataclass(frozen=True)
class Changes:
    """What becomes of the clusters while a day goes on."""

    capacity: np.ndarray
    """(T,G) share of the cores, and of the budget, that are there."""
    cost: np.ndarray
    """(T,G) what a request really costs, over what it cost when everything was measured."""

    @classmethod
    def none(cls, minutes: int, n_clusters: int) -> Changes:
        return cls(np.ones((minutes, n_clusters)), np.ones((minutes, n_clusters)))


class FixedPolicy:
    """The same joint action for every request, at every load."""

    def __init__(self, name: str, action: int) -> None:
        self.name, self.action = name, action

    def begin(self, pool: RequestPool, traffic: Traffic, first: np.ndarray) -> np.ndarray:
        return np.zeros(len(pool.scenario.clusters))

    def choose(self, observation: ControlObservation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(rows), self.action), observation.prices


class PricedPolicy:
    """argmax Q − Σ λ_g C_g (Eq. 6) with λ from a balancer.

    Args:
        name: for tables.
        values: (M, J) believed revenue of the pool's requests, currency.
        costs: (M, J, G) believed cost, core-seconds.
        balancer: sets λ once a minute.
        actions: joint actions that the policy may use; ``None``: all.
    """

    def __init__(
        self,
        name: str,
        values: np.ndarray,
        costs: np.ndarray,
        balancer: Balancer,
        actions: np.ndarray | None = None,
    ) -> None:
        self.name, self.balancer, self.actions = name, balancer, actions
        keep = slice(None) if actions is None else actions
        self.values = np.ascontiguousarray(values[:, keep], dtype=np.float32)
        self.costs = np.ascontiguousarray(costs[:, keep], dtype=np.float32)

    def begin(self, pool: RequestPool, traffic: Traffic, first: np.ndarray) -> np.ndarray:
        """The prices that would fit the budget exactly at the first minute's traffic, by the policy's own beliefs."""
        self.balancer.reset()
        rows = np.flatnonzero(first)
        budget = np.maximum(pool.scenario.budgets / traffic.qps[0], 1.001 * self._cheapest(rows, first[rows]))
        return dual_bound(self.values[rows], self.costs[rows], first[rows], budget, tolerance=1e-3)[1]

    def _cheapest(self, rows: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """Cost (G,) of the action that is cheapest overall."""
        mean = np.einsum("m,mjg->jg", chances, self.costs[rows])
        return mean[mean.sum(axis=1).argmin()]

    def choose(self, observation: ControlObservation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prices = self.balancer.update(observation)
        chosen = allocate(self.values[rows], self.costs[rows], prices)
        return (chosen if self.actions is None else self.actions[chosen]), prices


def draw_arrivals(pool: RequestPool, traffic: Traffic, seed: int) -> np.ndarray:
    """Requests of each kind in each minute, int32 (T, M); the same for every policy."""
    rng = np.random.default_rng([seed, 3])
    draws = [arrivals(rng, pool, q, SECONDS, traffic.minute_of_day(k)) for k, q in enumerate(traffic.qps)]
    return np.stack(draws).astype(np.int32)


def replay(
    policy: Policy,
    pool: RequestPool,
    traffic: Traffic,
    counts: np.ndarray,
    on_minute: Callable[[], None] | None = None,
    changes: Changes | None = None,
) -> pd.DataFrame:
    """Run a policy over the traffic with the arrivals ``counts`` (T, M).

    Returns:
        A row per minute: minute, qps, requests, the outcomes, and per cluster load (Ĉ, undegraded, core-seconds per
        second), budget, price, degradation, backlog (seconds), dropped (share).
    """
    whole = clusters = ClusterModel(pool.scenario)
    changes = changes or Changes.none(len(traffic), len(pool.scenario.clusters))
    state = clusters.initial()
    chances = pool.probabilities(traffic.minute_of_day(0))
    prices = policy.begin(pool, traffic, chances)
    before = traffic.qps[0] if traffic.history is None or len(traffic.history) == 0 else traffic.history[-1]
    # the telemetry of the minute before the first: a system on its budget
    observation = clusters.observe(traffic.minute_of_day(0), before, clusters.budgets, state, prices)
    rows_out = []
    chosen = np.zeros(len(pool.states), dtype=np.int64)
    for k in range(len(traffic)):
        rows = np.flatnonzero(pool.probabilities(traffic.minute_of_day(k)))
        chosen[rows], prices = policy.choose(observation, rows)
        clusters = whole.scaled(changes.capacity[k])  # the loss of a machine is seen in the minute after
        outcome, state = serve_minute(pool, chosen, counts[k], clusters, state, SECONDS, changes.cost[k])
        rows_out.append(_row(pool, k, outcome, prices, clusters, state))
        observation = clusters.observe(traffic.minute_of_day(k + 1), outcome.qps, outcome.equivalent, state, prices)
        if on_minute:
            on_minute()
    return pd.DataFrame(rows_out)


def _row(
    pool: RequestPool,
    minute: int,
    outcome: MinuteOutcome,
    prices: np.ndarray,
    clusters: ClusterModel,
    state: ClusterState,
) -> dict[str, float]:
    row: dict[str, float] = {"minute": minute, "qps": outcome.qps, "requests": outcome.requests, **outcome.outcomes}
    for g, name in enumerate(pool.scenario.cluster_names):
        row[f"load_{name}"] = outcome.equivalent[g]
        row[f"budget_{name}"] = clusters.budgets[g]
        row[f"price_{name}"] = prices[g]
        row[f"degradation_{name}"] = int(outcome.degradation[g])
        row[f"backlog_{name}"] = state.backlog[g] / clusters.cores[g]
        row[f"dropped_{name}"] = outcome.reading.dropped[g]
    return row


def clairvoyant_bound(pool: RequestPool, counts: np.ndarray, changes: Changes | None = None) -> float:
    """Upper bound on the revenue of any policy over the arrivals ``counts`` (T, M), with everything known (Eq. 2–5)."""
    changes = changes or Changes.none(len(counts), len(pool.scenario.clusters))
    actions, total = distinct_actions(pool), 0.0
    revenue, costs = pool.outcomes["revenue"][:, actions], pool.costs[:, actions]
    for start in range(0, len(counts), BOUND_MINUTES):
        part = slice(start, start + BOUND_MINUTES)
        asked = counts[part].sum(axis=0)
        rows = np.flatnonzero(asked)
        if len(rows):
            # the block's least cost, which only raises the bound
            budget = (
                pool.scenario.budgets * SECONDS * changes.capacity[part].sum(axis=0) / changes.cost[part].min(axis=0)
            )
            total += dual_bound(revenue[rows], costs[rows], asked[rows], budget, tolerance=1e-4)[0]
    return total


def distinct_actions(pool: RequestPool) -> np.ndarray:
    """A joint action of each that does something else, (J',): lengths of channels that are off do nothing."""
    of = InputEncoder(pool.scenario).distinct_of  # (J,)
    first = np.unique(of, return_index=True)[1]
    revenue = pool.outcomes["revenue"]
    alike = np.array_equal(revenue[:, first][:, of], revenue) and np.array_equal(
        pool.costs[:, first][:, of], pool.costs
    )
    return first if alike else np.arange(len(of))
