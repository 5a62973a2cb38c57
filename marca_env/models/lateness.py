"""Lateness: what a latency limit takes from the outcome of a request.

A request is late with the probability that its latency exceeds the limit (:class:`~marca_env.scenario.parts.Latency`).
It then earns a share of what the cheapest joint action would have earned:
(1 − P(late)) · outcome + P(late) · fallback · outcome of the cheapest joint action. The cheapest one is the first,
because the options of a decision are ordered by their cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from marca_env.models.latency import Duration
from marca_env.scenario.scenario import Latency
from marca_env.utils.errors import InputError

CHEAPEST = 0
"""Index of the cheapest joint action."""


def net_of_lateness(latency: Latency, on_time: np.ndarray, cheapest: np.ndarray, late: np.ndarray) -> np.ndarray:
    """Return expected outcomes net of lateness; all arrays have shapes that broadcast.

    Args:
        latency: the limit and the fallback.
        on_time: outcome of a request that is on time.
        cheapest: the same under the cheapest joint action.
        late: probability that the request is late.
    """
    return (1.0 - late) * on_time + late * (latency.fallback * cheapest)


def mean_latency(latency: Latency, time: Duration) -> np.ndarray:
    """Return the mean seconds until a request is answered: a hard limit cuts it off there."""
    return time.mean_up_to(latency.limit) if latency.hard else time.mean


def latency_quantile(latency: Latency, seconds: np.ndarray) -> np.ndarray:
    """Return quantiles of the time until requests are answered, from those of their service and waiting."""
    return np.minimum(seconds, latency.limit) if latency.hard else seconds


@dataclass(frozen=True)
class PoolLateness:
    """Service times of a request pool, and its outcomes without lateness. M requests, J joint actions."""

    latency: Latency
    service: Duration
    """(M,J) seconds without waiting; float32."""
    on_time: Mapping[str, np.ndarray]
    """Name → (M,J) outcome of a request that is on time; the names of the pool's outcomes."""

    def net_outcomes(self) -> dict[str, np.ndarray]:
        """Return the outcomes net of lateness where nothing waits: name → (M,J) float32."""
        late = self.service.share_above(self.latency.limit)
        return {
            name: net_of_lateness(self.latency, table, table[:, CHEAPEST, None], late).astype(np.float32)
            for name, table in self.on_time.items()
        }

    def outcomes_of(self, actions: np.ndarray, late: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outcomes of each request under its joint action ``actions`` (M,), late with probability (M,)."""
        rows = np.arange(len(actions))
        return {
            name: net_of_lateness(
                self.latency, table[rows, actions].astype(np.float64), table[:, CHEAPEST].astype(np.float64), late
            )
            for name, table in self.on_time.items()
        }

    def take_actions(self, columns: np.ndarray) -> PoolLateness:
        """Return the same with some columns of the joint actions."""
        tables = {name: table[:, columns] for name, table in self.on_time.items()}
        return PoolLateness(self.latency, self.service.take((slice(None), columns)), tables)

    def check(self, names: tuple[str, ...], shape: tuple[int, int]) -> None:
        """Raise an InputError unless there is a table of ``shape`` for every name of an outcome."""
        tables = {**self.on_time, "service mean": self.service.mean, "service variance": self.service.variance}
        for name, table in tables.items():
            if table.shape != shape:
                raise InputError(f"pool lateness: {name!r} has shape {table.shape}; expected {shape}")
        if set(self.on_time) != set(names):
            raise InputError(f"pool lateness: outcomes {sorted(self.on_time)}; give those of the pool, {sorted(names)}")
