"""Windows of requests: episodes in which the computation of a request affects the requests after it.

Each request stands for a slice of similar traffic. Its computation loads the clusters
(:mod:`marca_env.traffic.clusters`). Too much load raises the degradation level, which cuts the options of the next
requests, and leaves backlog; with too much backlog, requests are dropped with their revenue. The prices λ may follow
the load (primal–dual). In a scenario with several sites a request stands for a slice of its own site's traffic. Time
passes at this site alone: the clusters of other sites stay unchanged until their next request.

Shapes: B episodes, D decisions, G clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marca_env.models.latency import Duration
from marca_env.scenario.request_window import MAX_REQUESTS, RequestWindow, as_window
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.clusters import ClusterModel, ClusterState
from marca_env.traffic.waiting import mean_backlog, waiting_time

__all__ = ["LOAD_LIMIT", "MAX_REQUESTS", "RequestWindow", "SliceResult", "WindowClusters", "as_window"]

LOAD_LIMIT = 4.0
"""Observed loads over budget are clipped here."""


@dataclass(frozen=True)
class SliceResult:
    """Load and losses of one slice of traffic in each of B episodes."""

    load: np.ndarray
    """(B,G) core-seconds per second."""
    served_share: np.ndarray
    """(B,) share of the requests that no cluster dropped; in a fleet (B,N), of those of each site."""
    waiting: Duration | None = None
    """(B,) time that a request waits at its clusters; ``None`` without a latency limit."""


class WindowClusters:
    """The clusters of B episodes side by side.

    Attributes:
        prices: (B,G) λ in force.
        state: degradation levels (B,G) in force and waiting work (B,G) in core-seconds.
        load: (B,G) load of the last slice, core-seconds per second.
        n_served: requests of the episode served so far.

    Args:
        scenario: the recommender.
        window: length, traffic and prices of an episode.
        num_envs: B.
        prices: (G,) λ at the start of an episode.
        site_shares: (sites,) share of the traffic of each site; ``None``: equal shares.
    """

    def __init__(
        self,
        scenario: Scenario,
        window: RequestWindow,
        num_envs: int,
        prices: np.ndarray,
        site_shares: np.ndarray | None = None,
    ) -> None:
        self.scenario, self.window = scenario, window
        shares = np.full(scenario.n_sites, 1.0 / scenario.n_sites) if site_shares is None else site_shares
        self._peak = scenario.peak_qps * (shares @ scenario.site_clusters)  # (G,) requests per second of each cluster
        self._model = ClusterModel(scenario)
        self._first_prices = np.tile(prices, (num_envs, 1))
        self._levels = np.array([1.0, *scenario.protection.levels])
        self._options = np.array(scenario.action_shape)
        self._cluster_of = scenario.stage_clusters[:, scenario.decision_stage]  # (sites,D)
        self.reset()

    def reset(self) -> None:
        """Start an episode with idle clusters and the first prices."""
        shape = self._first_prices.shape
        self.prices, self.load, self.n_served = self._first_prices.copy(), np.zeros(shape), 0
        self.state = ClusterState(degradation=np.zeros(shape, dtype=np.int64), waiting_work=np.zeros(shape))

    @property
    def is_over(self) -> bool:
        """Whether the last request of the episode is served."""
        return self.n_served >= self.window.requests

    def degrade(self, actions: np.ndarray, site: np.ndarray | None = None) -> np.ndarray:
        """Return (B,D) the options that run instead of ``actions`` (B,D) under the degradation in force.

        It does for many requests what ``Scenario.degraded`` does for one.

        Args:
            actions: (B,D) option indices.
            site: (B,) int, site of each request; ``None`` if there is one site.
        """
        cluster = self._cluster_of[np.zeros(len(actions), dtype=np.int64) if site is None else site]  # (B,D)
        level = np.take_along_axis(self.state.degradation, cluster, axis=1)
        return self._capped(actions, level)

    def serve(self, cost: np.ndarray, undegraded: np.ndarray, site: np.ndarray | None = None) -> SliceResult:
        """Load the clusters with a slice of requests.

        Args:
            cost: (B,G) core-seconds per request of the options that ran.
            undegraded: (B,G) the same without degradation; it decides when degradation ends (Eq. 1).
            site: (B,) int, site of each request; ``None`` if there is one site.
        """
        qps, before = self._rate() * self._peak, self.state.waiting_work
        used = self.scenario.site_clusters[np.zeros(len(cost), dtype=np.int64) if site is None else site]  # (B,G)
        after, reading = self._model.step(self.state, cost * qps, undegraded * qps, self.window.seconds)
        self.state = ClusterState(
            degradation=np.where(used, after.degradation, self.state.degradation),
            waiting_work=np.where(used, after.waiting_work, self.state.waiting_work),
        )
        self.load = np.where(used, reading.load, self.load)
        if self.window.price_rate > 0:
            overload = undegraded * qps / self.scenario.budgets - 1.0
            self.prices = np.where(used, np.maximum(0.0, self.prices + self.window.price_rate * overload), self.prices)
        self.n_served += 1
        waiting = None
        if self.scenario.latency is not None:
            cores = self._model.cores
            each = waiting_time(reading.load, cores, cost, mean_backlog(before, after.waiting_work, cores))
            waiting = Duration((each.mean * used).sum(axis=1), (each.variance * used).sum(axis=1))
        return SliceResult(self.load, np.where(used, 1.0 - reading.dropped, 1.0).prod(axis=1), waiting)

    def _rate(self) -> float:
        """Return the rate of the current slice relative to the peak."""
        rates = (self.scenario.traffic or (1.0,)) if self.window.traffic is None else self.window.traffic
        return rates[self.n_served % len(rates)]

    def _capped(self, actions: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Return (…,D) the options that run at the levels (…,D) of the clusters of each decision."""
        highest = (self._levels[level] * (self._options - 1)).astype(np.int64)
        return np.where(level > 0, np.minimum(actions, highest), actions)

    def observe(self) -> np.ndarray:
        """Return the agents' observation of the clusters, (B, 3G+1) float32.

        It holds load over budget (G), degradation over the deepest level (G), backlog over the time-out (G), and the
        share of the window that has passed.
        """
        backlog = self.state.waiting_work / self.scenario.cores / self.scenario.protection.timeout
        parts = [
            np.minimum(self.load / self.scenario.budgets, LOAD_LIMIT),
            self.state.degradation / max(1, len(self._levels) - 1),
            np.minimum(backlog, 1.0),
            np.full((len(self.load), 1), self.n_served / self.window.requests),
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)


class FleetClusters(WindowClusters):
    """The clusters of B fleets side by side: in each slice every one of the N sites has a request of its own.

    Args:
        scenario: the recommender.
        window: length, traffic and prices of an episode.
        num_envs: B.
        prices: (G,) λ at the start of an episode.
        site_shares: (N,) share of the traffic of each site.
    """

    def __init__(
        self, scenario: Scenario, window: RequestWindow, num_envs: int, prices: np.ndarray, site_shares: np.ndarray
    ) -> None:
        super().__init__(scenario, window, num_envs, prices, site_shares)
        self._site_peak = scenario.peak_qps * site_shares  # (N,) requests per second of each site
        self._undegraded_load = np.zeros_like(self.load)

    def degrade_sites(self, actions: np.ndarray) -> np.ndarray:
        """Return (B,N,D) the options that run instead of ``actions`` (B,N,D) under the degradation in force."""
        return self._capped(actions, self.state.degradation[:, self._cluster_of])

    def serve_sites(self, cost: np.ndarray, undegraded: np.ndarray) -> SliceResult:
        """Load the clusters with a slice of requests of every site.

        Args:
            cost: (B,N,G) core-seconds per request of the options that ran.
            undegraded: (B,N,G) the same without degradation.

        Returns:
            Load (B,G), and the share of each site's requests that no cluster dropped, (B,N).
        """
        qps = self._rate() * self._site_peak
        demand, self._undegraded_load = (np.einsum("bng,n->bg", c, qps) for c in (cost, undegraded))
        self.state, reading = self._model.step(self.state, demand, self._undegraded_load, self.window.seconds)
        self.load = reading.load
        self.n_served += 1
        served = np.where(self.scenario.site_clusters, 1.0 - reading.dropped[:, None], 1.0)  # (B,N,G)
        return SliceResult(self.load, served.prod(axis=2))

    def update_prices(self) -> None:
        """Let the prices follow the load of the last slice, if the window's ``price_rate`` says so."""
        if self.window.price_rate > 0:
            overload = self._undegraded_load / self.scenario.budgets - 1.0
            self.prices = np.maximum(0.0, self.prices + self.window.price_rate * overload)
