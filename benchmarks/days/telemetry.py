"""Simulated telemetry of a system under disturbed prices, and the system model fitted on it.

Shapes: M kinds of request, J joint actions, G clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import distinct_actions
from marca_env.traffic.day_simulator import replay
from marca_env.traffic.dual_bound import dual_bound
from marca_env.traffic.policies import PricedPolicy
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.workload import daily_traffic
from marca_env.utils.units import MINUTES_PER_DAY
from mpc import DitheredBalancer, FeedbackBalancer, FeedbackSettings, SystemModel

POOL_SIZE = 240
DAYS = 4


def shipped_pool(size: int = POOL_SIZE, seed: int = 0) -> RequestPool:
    """Return requests of the default scenario with the outcomes and costs that its shipped models predict."""
    return Engine.load("default").pool(size, seed=seed)


def usual_prices(pool: RequestPool, qps: float) -> np.ndarray:
    """Return prices (G,) that fit the budgets at ``qps`` requests per second; every price is above zero."""
    values, weights = pool.outcomes["revenue"], np.full(len(pool.states), 1 / len(pool.states))
    mean = np.einsum("m,mjg->jg", weights, pool.costs)
    budget = np.maximum(pool.scenario.budgets / qps, 1.01 * mean[mean.sum(axis=1).argmin()])
    prices = dual_bound(values, pool.costs, weights, budget, tolerance=1e-3)[1]
    return np.maximum(prices, 1e-3 * prices.max() + 1e-9)


def system_log(
    pool: RequestPool,
    days: int = DAYS,
    seed: int = 0,
    spread: float = 0.6,
    on_day: Callable[[], None] | None = None,
) -> pd.DataFrame:
    """Simulate days of generated traffic under feedback whose prices are disturbed.

    Args:
        pool: requests with the outcomes and costs that feedback expects, and that come true.
        days: number of days.
        seed: seed of traffic, arrivals and disturbances.
        spread: standard deviation of the disturbance of the log prices.
        on_day: called after each day.

    Returns:
        A system log (:func:`marca_env.logs.schema.system_columns`), a row per minute.
    """
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
        if on_day is not None:
            on_day()
    return pd.concat(logs, ignore_index=True)


def fit_system_model(pool: RequestPool, seed: int = 0, **settings: Any) -> SystemModel:
    """Fit a system model on :func:`system_log`; ``settings`` are those of :meth:`mpc.SystemModel.fit`."""
    return SystemModel.fit(system_log(pool, seed=seed), clusters=pool.scenario.cluster_names, seed=seed, **settings)
