"""A simulated system that changes while it runs: another ranking model, machines lost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from benchmarks.days.simulated_system import Plant
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import MinuteOutcome
from marca_env.traffic.clusters import ClusterModel, ControlObservation
from marca_env.utils.errors import InputError


def with_costs(pool: RequestPool, cluster: str, factor: float) -> RequestPool:
    """The same requests where the work of one cluster costs ``factor`` times as much, measured and believed.

    Raises:
        InputError: no such cluster.
    """
    names = pool.scenario.cluster_names
    if cluster not in names:
        raise InputError(f"no cluster {cluster!r}; there are {', '.join(names)}")
    factors = np.where(np.array(names) == cluster, factor, 1.0)
    return dataclasses.replace(pool, costs=(pool.costs * factors).astype(pool.costs.dtype))


def with_machines(pool: RequestPool, share: float) -> RequestPool:
    """The same requests with only ``share`` of the cores, and of the budgets, of every cluster."""
    clusters = tuple(
        dataclasses.replace(c, cores=share * c.cores, budget=share * c.budget) for c in pool.scenario.clusters
    )
    return dataclasses.replace(pool, scenario=dataclasses.replace(pool.scenario, clusters=clusters))


@dataclass
class ChangingPlant(Plant):
    """A :class:`benchmarks.days.simulated_system.Plant` that from minute ``change`` on serves ``after``, with its clusters.

    What waits and what is degraded stays; the telemetry of a minute carries the budgets that held in it.
    """

    after: RequestPool | None = None
    change: int = 0

    def step(self, prices: np.ndarray) -> tuple[MinuteOutcome, ControlObservation]:
        """Serve a minute under ``prices`` (G,): what happened, and what is reported of it."""
        if self.after is not None and self.minute == self.change:
            self.pool = self.after
            self.clusters = ClusterModel(self.after.scenario)
        return super().step(prices)
