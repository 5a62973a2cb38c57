"""Minutes to plan for the comparison of solvers: met in the closed loop, or of a generated system of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.days.telemetry import usual_prices
from marca_env.traffic.days import flash_sale
from marca_env.traffic.simulated_system import SimulatedSystem, draw_arrivals
from marca_env.traffic.workload import daily_traffic
from mpc import SystemModel
from mpc.model.conditions import Conditions
from mpc.planning.objective import Now
from mpc.planning.predicted_loads import PredictedLoads

if TYPE_CHECKING:
    from marca_env.models.request_pool import RequestPool
    from mpc import SystemModel
    from mpc.planning.scp import PlannerSettings

MANY = 200
"""So many minutes or more are drawn from whole days."""
State = tuple[PredictedLoads, Now, "np.ndarray | None"]
"""Loads as a function of prices, where the plan starts, and the nominal log prices (N,G)."""


def collect(pool: RequestPool, model: SystemModel, n: int, seed: int, settings: PlannerSettings) -> list[State]:
    """``n`` problems as a balancer met them, drawn from a generated day and a flash sale: (loads, now, nominal)."""
    from mpc import MPCBalancer

    met: list[State] = []
    days = daily_traffic(pool.scenario, np.random.default_rng([seed, 21])), flash_sale(pool, seed)
    for whole_day in days:
        traffic = whole_day.clipped(1440 if n >= MANY else 760)
        balancer = MPCBalancer(model, horizon=settings.horizon)
        balancer.planner = _Recorder(balancer.planner, met)  # type: ignore[assignment]
        plant = SimulatedSystem(pool, traffic, draw_arrivals(pool, traffic, seed))
        prices = usual_prices(pool, float(traffic.qps[0]))
        observation = plant.start(prices)
        for _ in range(len(plant.traffic)):
            prices = balancer.update(observation)
            _, observation = plant.step(prices)
    chosen = np.random.default_rng([seed, 22]).choice(len(met), min(n, len(met)), replace=False)
    return [met[k] for k in chosen]


class _Recorder:
    def __init__(self, inner: Any, met: list[State]) -> None:
        self._inner, self._met = inner, met

    def plan(self, predicted: Any, now: Any, nominal: Any = None, deadline: Any = None) -> Any:
        self._met.append((predicted, now, nominal))
        return self._inner.plan(predicted, now, nominal, deadline)


def generated_model(n_clusters: int, seed: int, epochs: int) -> SystemModel:
    """A system model of a generated system in which every price acts on every cluster, its own most."""

    rng, n = np.random.default_rng([seed, n_clusters]), 2 * 1440
    own, others = rng.uniform(0.3, 0.9, n_clusters), rng.uniform(0.0, 0.2, (n_clusters, n_clusters)) / n_clusters
    prices = np.exp(rng.normal(1.0, 1.0, (n, n_clusters)))
    u, minute = np.log1p(prices / 2), np.arange(n) % 1440
    logs = np.log(0.01) - own * u - u @ others.T + 0.1 * np.sin(2 * np.pi * minute / 1440)[:, None]
    qps = 200 + 100 * np.sin(2 * np.pi * minute / 1440)
    columns = {"day": np.arange(n) // 1440, "minute": minute, "qps": qps}
    for g in range(n_clusters):
        columns[f"load_c{g}"] = qps * np.exp(logs[:, g] + rng.normal(0, 0.01, n))
        columns[f"price_c{g}"], columns[f"degradation_c{g}"] = prices[:, g], np.zeros(n)
    return SystemModel.fit(pd.DataFrame(columns), epochs=epochs, seed=seed, horizons=(1,))


def generated_problem(model: SystemModel, horizon: int, rng: np.random.Generator) -> tuple[PredictedLoads, Now]:
    """A minute at random prices, 10 % off the budget, with traffic that wanders from there."""

    size, minute = model.n_clusters, int(rng.integers(1440))
    prices = np.exp(rng.normal(1.0, 0.5, size))
    qps = 200 * np.exp(np.cumsum(rng.normal(0, 0.03, horizon + 1)))
    levels = np.zeros(size)
    last = Conditions(qps[0], np.array(minute), levels)
    coming = Conditions(qps[1:], (minute + 1 + np.arange(horizon)) % 1440, np.broadcast_to(levels, (horizon, size)))
    load = model.predict(np.ones(size), last, prices, last, prices)
    budget = load * np.exp(rng.normal(0, 0.1, size))
    predicted = PredictedLoads(model.array_response().horizon(load, last, prices, coming), coming.qps, budget)
    return predicted, Now(model.prices.to_log(prices), load / budget, np.full(size, 0.995))
