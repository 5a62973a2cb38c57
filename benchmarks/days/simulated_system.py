"""A balancer against the simulated clusters, minute by minute: traffic shapes, telemetry, commissioning of a model.

Shapes: T minutes, M kinds of request, J joint actions, G clusters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import MinuteOutcome, allocate, serve_minute
from marca_env.traffic.clusters import ClusterModel, ClusterState, ControlObservation
from marca_env.traffic.day_simulator import SECONDS, PricedPolicy, distinct_actions, draw_arrivals, replay
from marca_env.traffic.dual_bound import dual_bound
from marca_env.traffic.workload import Traffic, daily_traffic
from marca_env.utils.units import MINUTES_PER_DAY
from mpc import DitheredBalancer, FeedbackBalancer, FeedbackSettings, SystemModel

if TYPE_CHECKING:
    from mpc import SystemModel

POOL_SIZE = 240
DAYS = 4


@dataclass
class Plant:
    """Requests, clusters and the telemetry that they send; a balancer's prices go in.

    Args:
        pool: the kinds of request; values and costs are believed to be what they are.
        traffic: mean rates of the minutes.
        seed: of the arrivals.
        counts: (T,M) arrivals; drawn from ``seed`` if not given.
    """

    pool: RequestPool
    traffic: Traffic
    seed: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        self.clusters = ClusterModel(self.pool.scenario)
        if self.counts.size == 0:
            self.counts = draw_arrivals(self.pool, self.traffic, self.seed)
        self._values = np.ascontiguousarray(self.pool.outcomes["revenue"], dtype=np.float32)

    def start(self, prices: np.ndarray) -> ControlObservation:
        """The telemetry of the minute before the first: a system on its budget."""
        self.minute = 0
        self._state: ClusterState = self.clusters.initial()
        first = self.traffic.minute_of_day(0)
        return self.clusters.observe(first, float(self.traffic.qps[0]), self.pool.scenario.budgets, self._state, prices)

    def step(self, prices: np.ndarray) -> tuple[MinuteOutcome, ControlObservation]:
        """Serve a minute under ``prices`` (G,): what happened, and what is reported of it."""
        k, of_day = self.minute % len(self.traffic), self.traffic.minute_of_day(self.minute)
        rows = np.flatnonzero(self.pool.probabilities(of_day))
        chosen = np.zeros(len(self._values), dtype=np.int64)
        chosen[rows] = allocate(self._values[rows], self.pool.costs[rows], prices)
        outcome, self._state = serve_minute(self.pool, chosen, self.counts[k], self.clusters, self._state, SECONDS)
        self.minute += 1
        coming = self.traffic.minute_of_day(self.minute)
        return outcome, self.clusters.observe(coming, outcome.qps, outcome.equivalent, self._state, prices)


def shipped_pool(size: int = POOL_SIZE, seed: int = 0) -> RequestPool:
    """Requests of the default scenario with the outcomes and costs that its shipped models predict."""

    return Engine.load("default").pool(size, seed=seed)


def usual_prices(pool: RequestPool, qps: float) -> np.ndarray:
    """Prices (G,) that fit the budgets at ``qps`` requests per second, never quite zero."""
    values, weights = pool.outcomes["revenue"], np.full(len(pool.states), 1 / len(pool.states))
    mean = np.einsum("m,mjg->jg", weights, pool.costs)
    budget = np.maximum(pool.scenario.budgets / qps, 1.01 * mean[mean.sum(axis=1).argmin()])
    prices = dual_bound(values, pool.costs, weights, budget, tolerance=1e-3)[1]
    return np.maximum(prices, 1e-3 * prices.max() + 1e-9)


def system_log(pool: RequestPool, days: int = DAYS, seed: int = 0, spread: float = 0.6) -> pd.DataFrame:
    """Days of telemetry under feedback whose prices are disturbed, of generated traffic."""

    rng, values, logs = np.random.default_rng([seed, 6]), pool.outcomes["revenue"], []
    actions = distinct_actions(pool)
    for day in range(days):
        traffic = daily_traffic(pool.scenario, rng)
        scale = tuple(usual_prices(pool, float(traffic.qps.mean())).tolist())
        explore = DitheredBalancer(
            FeedbackBalancer(FeedbackSettings(scale=scale)), seed=1000 * seed + day, spread=spread
        )
        counts = draw_arrivals(pool, traffic, 1000 * seed + day)
        rows = replay(PricedPolicy("explore", values, pool.costs, explore, actions), pool, traffic, counts)
        logs.append(rows.assign(day=day, minute=np.arange(len(traffic)) % MINUTES_PER_DAY))
    return pd.concat(logs, ignore_index=True)


def commissioned(pool: RequestPool, seed: int = 0, **settings: Any) -> SystemModel:
    """A system model fitted on :func:`system_log`."""

    return SystemModel.fit(system_log(pool, seed=seed), clusters=pool.scenario.cluster_names, seed=seed, **settings)
