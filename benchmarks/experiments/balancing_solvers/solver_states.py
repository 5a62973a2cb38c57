"""States that a model-predictive balancer met in the closed loop, for the comparison of solvers."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.days.telemetry import usual_prices
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.days import flash_sale
from marca_env.traffic.simulated_system import SimulatedSystem, draw_arrivals
from marca_env.traffic.workload import daily_traffic
from mpc import MPCBalancer, SystemModel
from mpc.planning.objective import PlanStart
from mpc.planning.predicted_loads import PredictedLoads

WHOLE_DAYS_FROM = 200
"""For this many states or more whole days are simulated."""
State = tuple[PredictedLoads, PlanStart, np.ndarray | None]
"""Loads as a function of prices, where the plan starts, and the nominal log prices (N, G)."""


def collect_states(pool: RequestPool, model: SystemModel, n: int, seed: int, horizon: int) -> list[State]:
    """Draw ``n`` states that a balancer met on a generated day and in a flash sale."""
    states: list[State] = []
    days = daily_traffic(pool.scenario, np.random.default_rng([seed, 21])), flash_sale(pool, seed)
    for day in days:
        traffic = day.clipped(1440 if n >= WHOLE_DAYS_FROM else 760)
        balancer = MPCBalancer(model, horizon=horizon)
        balancer.planner = _RecordingPlanner(balancer.planner, states)  # type: ignore[assignment]
        system = SimulatedSystem(pool, traffic, draw_arrivals(pool, traffic, seed))
        prices = usual_prices(pool, float(traffic.qps[0]))
        observation = system.start(prices)
        for _ in range(len(traffic)):
            prices = balancer.update(observation)
            _, observation = system.step(prices)
    drawn = np.random.default_rng([seed, 22]).choice(len(states), min(n, len(states)), replace=False)
    return [states[k] for k in drawn]


class _RecordingPlanner:
    def __init__(self, inner: Any, states: list[State]) -> None:
        self._inner, self._states = inner, states

    def plan(self, predicted: Any, now: Any, nominal: Any = None, deadline: Any = None) -> Any:
        self._states.append((predicted, now, nominal))
        return self._inner.plan(predicted, now, nominal, deadline)
