"""Simulated system that changes while it runs: costlier ranking, or lost machines."""

from __future__ import annotations

import dataclasses

import numpy as np

from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import MinuteOutcome
from marca_env.traffic.control import ControlObservation
from marca_env.traffic.simulated_system import SimulatedSystem
from marca_env.traffic.workload import Traffic
from marca_env.utils.errors import InputError, unknown_option


def with_costs(pool: RequestPool, cluster: str, factor: float) -> RequestPool:
    """Return the same requests with the work of one cluster ``factor`` times as costly, measured and predicted.

    Raises:
        InputError: there is no such cluster.
    """
    names = pool.scenario.cluster_names
    if cluster not in names:
        raise InputError(unknown_option("cluster", cluster, names))
    factors = np.where(np.array(names) == cluster, factor, 1.0)
    return dataclasses.replace(pool, costs=(pool.costs * factors).astype(pool.costs.dtype))


def with_machines(pool: RequestPool, share: float) -> RequestPool:
    """Return the same requests with only ``share`` of the cores and of the budget of every cluster."""
    clusters = tuple(
        dataclasses.replace(c, cores=share * c.cores, budget=share * c.budget) for c in pool.scenario.clusters
    )
    return dataclasses.replace(pool, scenario=dataclasses.replace(pool.scenario, clusters=clusters))


class ChangingSystem(SimulatedSystem):
    """Simulated system that serves other requests, on other clusters, from one minute on.

    Waiting work and degradation stay; the telemetry of a minute carries the budgets that held in it.

    Args:
        pool: requests before the change.
        traffic: mean rate of each minute.
        arrivals: (T, M) requests of each kind in each minute.
        after: requests since the change, with their clusters; ``None``: nothing changes.
        change: minute of the change.
    """

    def __init__(
        self, pool: RequestPool, traffic: Traffic, arrivals: np.ndarray, *, after: RequestPool | None, change: int
    ) -> None:
        super().__init__(pool, traffic, arrivals)
        self.after, self.change = after, change

    def step(self, prices: np.ndarray) -> tuple[MinuteOutcome, ControlObservation]:
        """Serve a minute under ``prices`` (G,); return its outcome and the telemetry after it."""
        if self.after is not None and self.minute == self.change:
            self.replace_pool(self.after)
        return super().step(prices)
