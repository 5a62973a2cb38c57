"""The one simulator of a minute: requests arrive, get joint actions, load the clusters, and telemetry comes back.

`Balancing-v0`, `marca simulate`, `marca balance`, the experiments and the tests all serve their minutes here. Shapes:
T minutes, M kinds of request, G clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import AllocationTable, MinuteOutcome, serve_minute
from marca_env.traffic.clusters import ClusterModel, ClusterState
from marca_env.traffic.control import ControlObservation
from marca_env.traffic.workload import Traffic
from marca_env.utils.errors import InputError
from marca_env.utils.units import SECONDS_PER_MINUTE

MOST_QPS = 3e7
"""Highest rate that is simulated, requests per second; the requests of a minute are counted in 32 bits."""


@dataclass(frozen=True)
class SystemChanges:
    """Changes of the clusters while a day goes on."""

    capacity: np.ndarray
    """(T,G) share of the cores, and of the budget, that is available."""
    cost: np.ndarray
    """(T,G) real cost of a request, over the cost in the request pool."""

    @classmethod
    def none(cls, minutes: int, n_clusters: int) -> SystemChanges:
        """Return a day on which nothing changes."""
        return cls(np.ones((minutes, n_clusters)), np.ones((minutes, n_clusters)))


class SimulatedSystem:
    """A recommender under traffic: serves one minute at a time and reports the telemetry that a balancer gets.

    Call :meth:`start` first. Then serve each minute by :meth:`step` (actions follow from the prices and the true
    values) or by :meth:`serve` (actions are given).

    Args:
        pool: kinds of request with their true outcomes and costs.
        traffic: mean rate of each minute; after the last minute it begins again.
        arrivals: (T,M) requests of each kind in each minute, or a generator from which each minute's are drawn when
            it is served.
        changes: changes of the clusters; ``None``: nothing changes.
        table: what :meth:`step` chooses from; ``None``: the true values and costs of the pool's distinct actions.

    Attributes:
        minute: the minute to serve next, counted from the start.
        clusters: the clusters as they were in the last minute.
        state: state of the clusters after the last minute.
    """

    def __init__(
        self,
        pool: RequestPool,
        traffic: Traffic,
        arrivals: np.ndarray | np.random.Generator,
        changes: SystemChanges | None = None,
        table: AllocationTable | None = None,
    ) -> None:
        self.pool, self.traffic, self.arrivals, self.changes = pool, traffic, arrivals, changes
        if table is not None:
            self.table = table
        self.minute = 0
        self._intact = self.clusters = ClusterModel(pool.scenario)
        self.state: ClusterState = self.clusters.initial()

    @cached_property
    def table(self) -> AllocationTable:
        """Values and costs that :meth:`step` chooses by."""
        return AllocationTable.of_pool(self.pool)

    def start(self, prices: np.ndarray, qps: float | None = None) -> ControlObservation:
        """Begin the day and return the telemetry of the minute before: a system on its budget, or idle without traffic.

        Args:
            prices: (G,) prices that it reports, currency per core-second.
            qps: requests per second that it reports; ``None``: the rate of the first minute.
        """
        self.minute, self.clusters = 0, self._intact
        self.state = self.clusters.initial()
        rate = float(self.traffic.qps[0]) if qps is None else qps
        load = self.clusters.budgets if rate > 0 else np.zeros_like(self.clusters.budgets)
        return self.clusters.observe(self.traffic.minute_of_day(0), rate, load, self.state, prices)

    @property
    def is_over(self) -> bool:
        """Whether all minutes of the traffic have been served."""
        return self.minute >= len(self.traffic)

    @property
    def possible_requests(self) -> np.ndarray:
        """Kinds of request that can come in the next minute, indices into the pool."""
        return np.flatnonzero(self.pool.probabilities(self.traffic.minute_of_day(self.minute)))

    def step(self, prices: np.ndarray) -> tuple[MinuteOutcome, ControlObservation]:
        """Serve a minute under ``prices`` (G,), each request getting its best joint action (Eq. 6).

        Returns:
            The outcome of the minute, and the telemetry after it.
        """
        return self.serve(self.table.choose(prices, self.possible_requests), prices)

    def serve(self, actions: np.ndarray, prices: np.ndarray) -> tuple[MinuteOutcome, ControlObservation]:
        """Serve a minute with chosen actions.

        Args:
            actions: joint action of each of the :attr:`possible_requests`.
            prices: (G,) prices to report as those in force.

        Returns:
            The outcome of the minute, and the telemetry after it.
        """
        k, of_day = self.minute % len(self.traffic), self.traffic.minute_of_day(self.minute)
        chosen = np.zeros(len(self.pool.states), dtype=np.int64)  # the other kinds have no requests
        chosen[self.possible_requests] = actions
        cost_factor: np.ndarray | float = 1.0
        if self.changes is not None:
            self.clusters, cost_factor = self._intact.scaled(self.changes.capacity[k]), self.changes.cost[k]
        outcome, self.state = serve_minute(
            self.pool, chosen, self._counts(k, of_day), self.clusters, self.state, SECONDS_PER_MINUTE, cost_factor
        )
        self.minute += 1
        return outcome, self._observe(outcome.qps, outcome.equivalent, prices)

    def hold(self, prices: np.ndarray, minutes: int) -> tuple[list[MinuteOutcome], ControlObservation]:
        """Hold ``prices`` (G,) for a control period.

        Args:
            prices: currency per core-second.
            minutes: length of the period; it ends earlier where the traffic does.

        Returns:
            The outcome of each minute, and the telemetry after them, with the means of rate and load.
        """
        outcomes = [self.step(prices)[0] for _ in range(min(minutes, len(self.traffic) - self.minute))]
        load = np.mean([outcome.equivalent for outcome in outcomes], axis=0)
        return outcomes, self._observe(float(np.mean([outcome.qps for outcome in outcomes])), load, prices)

    def replace_pool(self, pool: RequestPool) -> None:
        """Serve other requests on other clusters from now on; waiting work and degradation stay."""
        self.pool, self._intact = pool, ClusterModel(pool.scenario)
        self.clusters, self.table = self._intact, AllocationTable.of_pool(pool)

    def _observe(self, qps: float, load: np.ndarray, prices: np.ndarray) -> ControlObservation:
        return self.clusters.observe(self.traffic.minute_of_day(self.minute), qps, load, self.state, prices)

    def _counts(self, k: int, of_day: int) -> np.ndarray:
        if isinstance(self.arrivals, np.random.Generator):
            return sample_arrivals(self.arrivals, self.pool, float(self.traffic.qps[k]), SECONDS_PER_MINUTE, of_day)
        return self.arrivals[k]


def sample_arrivals(rng: np.random.Generator, pool: RequestPool, qps: float, seconds: float, minute: int) -> np.ndarray:
    """Draw the requests of each kind in a period: Poisson(qps · seconds) in all, spread over the current time window.

    Args:
        rng: source of the draw.
        pool: the kinds of request.
        qps: mean requests per second.
        seconds: length of the period.
        minute: minute of the day, 0 … 1439.

    Returns:
        (M,) int64 counts.

    Raises:
        InputError: a rate that is negative, not a number or above :data:`MOST_QPS`.
    """
    if not 0 <= qps <= MOST_QPS:
        raise InputError(f"qps is {qps}; use a rate from 0 to {MOST_QPS:g} requests per second, or scale the traffic")
    return rng.multinomial(rng.poisson(qps * seconds), pool.probabilities(minute))


def draw_arrivals(pool: RequestPool, traffic: Traffic, seed: int) -> np.ndarray:
    """Draw the requests of each kind in each minute of a day, int32 (T,M), so that all policies meet the same."""
    rng = np.random.default_rng([seed, 3])
    draws = [
        sample_arrivals(rng, pool, q, SECONDS_PER_MINUTE, traffic.minute_of_day(k)) for k, q in enumerate(traffic.qps)
    ]
    return np.stack(draws).astype(np.int32)
