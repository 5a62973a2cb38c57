"""A generated system whose law of costs is known: its log, its fitted model, and states near and far from the budget.

Equations are those of arXiv 2512.24325. Shapes: N minutes, G clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from mpc import SystemModel
from mpc.model.conditions import Conditions
from mpc.planning.objective import PlanStart
from mpc.planning.predicted_loads import PredictedLoads

NOISE = 0.01
"""Standard deviation of the log load of a minute around the law."""
TARGET = 0.995
"""Load to aim at, as a fraction of the budget."""


class PlanningState(NamedTuple):
    """A minute from which a plan starts, and the law that the loads follow."""

    predicted: PredictedLoads
    start: PlanStart
    true_loads: Callable[[np.ndarray], np.ndarray]
    """Log prices (N,G) → mean loads (N,G) by the law, as fractions of the budgets."""


class GeneratedSystem:
    """A system where every price acts on every cluster, most on its own.

    Args:
        n_clusters: G.
        seed: of the law and of the log.
    """

    def __init__(self, n_clusters: int, seed: int) -> None:
        self.n_clusters, self.seed = n_clusters, seed
        self._rng = np.random.default_rng([seed, n_clusters])
        self.own = self._rng.uniform(0.3, 0.9, n_clusters)
        self.others = self._rng.uniform(0.0, 0.2, (n_clusters, n_clusters)) / n_clusters

    def log_costs(self, prices: np.ndarray, minute: np.ndarray) -> np.ndarray:
        """Return the mean log cost per request (…,G) at prices (…,G) in minutes (…) of the day."""
        u = np.log1p(np.asarray(prices) / 2)
        wave = 0.1 * np.sin(2 * np.pi * np.asarray(minute) / 1440)
        return np.log(0.01) - self.own * u - u @ self.others.T + wave[..., None]

    def log(self) -> pd.DataFrame:
        """Return a system log of two days at random prices; call it once, because it draws from the system's seed."""
        rng, size, n = self._rng, self.n_clusters, 2 * 1440
        prices = np.exp(rng.normal(1.0, 1.0, (n, size)))
        minute = np.arange(n) % 1440
        logs = self.log_costs(prices, minute)
        qps = 200 + 100 * np.sin(2 * np.pi * minute / 1440)
        columns = {"day": np.arange(n) // 1440, "minute": minute, "qps": qps}
        for g in range(size):
            columns[f"load_c{g}"] = qps * np.exp(logs[:, g] + rng.normal(0, NOISE, n))
            columns[f"price_c{g}"], columns[f"degradation_c{g}"] = prices[:, g], np.zeros(n)
        return pd.DataFrame(columns)

    def fit(self, epochs: int) -> SystemModel:
        """Fit the system model to :meth:`log`."""
        return SystemModel.fit(self.log(), epochs=epochs, seed=self.seed, horizons=(1,))

    def state(self, model: SystemModel, horizon: int, off: float, rng: np.random.Generator) -> PlanningState:
        """Draw a minute at random prices whose load is off the budget, from which traffic changes at random.

        Args:
            model: the fitted model.
            horizon: N.
            off: standard deviation of the log of load over budget.
            rng: source of the draws.
        """
        size, minute = self.n_clusters, int(rng.integers(1440))
        prices = np.exp(rng.normal(1.0, 0.5, size))
        qps = 200 * np.exp(np.cumsum(rng.normal(0, 0.03, horizon + 1)))
        levels, minutes = np.zeros(size), (minute + 1 + np.arange(horizon)) % 1440
        last = Conditions(qps[0], np.array(minute), levels)
        forecast = Conditions(qps[1:], minutes, np.broadcast_to(levels, (horizon, size)))
        load = qps[0] * np.exp(self.log_costs(prices, np.array(minute)) + rng.normal(0, NOISE, size))
        budget = load * np.exp(rng.normal(0, off, size))
        predicted = PredictedLoads(model.array_response().horizon(load, last, prices, forecast), forecast.qps, budget)

        def true_loads(log_prices: np.ndarray) -> np.ndarray:
            costs = np.exp(self.log_costs(model.prices.to_price(log_prices), minutes))
            return costs * qps[1:, None] / budget

        return PlanningState(
            predicted, PlanStart(model.prices.to_log(prices), load / budget, np.full(size, TARGET)), true_loads
        )
