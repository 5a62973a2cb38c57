"""Windows of requests: episodes in which what a request costs now is felt by the requests after it.

Each request stands for a slice of traffic that is like it. Its computation loads the clusters
(:mod:`marca_env.traffic.clusters`): too much raises the degradation level, which cuts the options of the next requests, and
leaves backlog, beyond which requests are dropped with their revenue. The prices λ may follow the load (primal–dual).
In a scenario with several sites a request stands for a slice of its own site's traffic, and time passes there alone:
the clusters of the other sites are as they were when their next request comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marca_env.scenario.scenario import Scenario
from marca_env.traffic.clusters import ClusterModel, ClusterState
from marca_env.utils.dataclass_schema import from_plain
from marca_env.utils.errors import InputError

LOAD_LIMIT = 4.0
"""Loads are shown relative to the budget and cut off here."""


@dataclass(frozen=True)
class RequestWindow:
    """What an episode of several requests is."""

    requests: int = 30
    """Requests of an episode, one after the other."""
    seconds: float = 60.0
    """Length of the slice of traffic that a request stands for."""
    traffic: tuple[float, ...] | None = None
    """Rate of each slice, relative to ``scenario.peak_qps``; begins again at its end. ``None``: the scenario's own."""
    price_rate: float = 0.0
    """η of λ_g ← max(0, λ_g + η · (undegraded load_g / budget_g − 1)) after each slice, currency per core-second; 0
    leaves λ as it is."""

    def __post_init__(self) -> None:
        if not isinstance(self.requests, (int, np.integer)) or self.requests < 1:
            raise InputError(f"window.requests is {self.requests}; give a whole number of at least one")
        for name, value in (("seconds", self.seconds), ("price_rate", self.price_rate)):
            least = "positive" if name == "seconds" else "not negative"
            if not (np.isfinite(value) and value >= 0 and (value > 0 or name == "price_rate")):
                raise InputError(f"window.{name} is {value}; it must be finite and {least}")
        rates = np.asarray((1.0,) if self.traffic is None else self.traffic, dtype=float)
        if rates.ndim != 1 or len(rates) == 0 or not np.all(np.isfinite(rates)) or np.any(rates < 0):
            raise InputError(f"window.traffic is {self.traffic}; give finite rates that are not negative")


@dataclass(frozen=True)
class Slice:
    """What became of a slice of traffic in each of B episodes."""

    load: np.ndarray
    """(B,G) core-seconds per second."""
    kept: np.ndarray
    """(B,) share of the requests that no cluster dropped."""


class WindowClusters:
    """The clusters of B episodes side by side.

    Attributes:
        prices: (B,G) λ in force.
        state: degradation levels (B,G) in force and waiting work (B,G), core-seconds.
        done: requests of the episode that are served.

    Args:
        prices: (G,) the first.
        shares: (sites,) of the traffic; ``None``: all alike.
    """

    def __init__(
        self,
        scenario: Scenario,
        window: RequestWindow,
        num_envs: int,
        prices: np.ndarray,
        shares: np.ndarray | None = None,
    ) -> None:
        self.scenario, self.window = scenario, window
        shares = np.full(scenario.n_sites, 1.0 / scenario.n_sites) if shares is None else shares
        self._peak = scenario.peak_qps * (shares @ scenario.site_clusters)  # (G,) of the requests that each serves
        self._model = ClusterModel(scenario)
        self._first_prices = np.tile(prices, (num_envs, 1))
        self._levels = np.array([1.0, *scenario.protection.levels])
        self._options = np.array(scenario.action_shape)
        self._cluster_of = scenario.stage_clusters[:, scenario.decision_stage]  # (sites,D)
        self.reset()

    def reset(self) -> None:
        """Idle clusters and the first prices."""
        shape = self._first_prices.shape
        self.prices, self.load, self.done = self._first_prices.copy(), np.zeros(shape), 0
        self.state = ClusterState(degradation=np.zeros(shape, dtype=np.int64), waiting_work=np.zeros(shape))

    @property
    def over(self) -> bool:
        """Whether the episode's last request is served."""
        return self.done >= self.window.requests

    def degraded(self, actions: np.ndarray, site: np.ndarray | None = None) -> np.ndarray:
        """(B,D) the options that really run, for those that were chosen (B,D), as ``Scenario.degraded`` has it, at the
        sites (B,) of the requests."""
        cluster = self._cluster_of[np.zeros(len(actions), dtype=np.int64) if site is None else site]  # (B,D)
        level = np.take_along_axis(self.state.degradation, cluster, axis=1)
        highest = (self._levels[level] * (self._options - 1)).astype(np.int64)
        return np.where(level > 0, np.minimum(actions, highest), actions)

    def serve(self, cost: np.ndarray, undegraded: np.ndarray, site: np.ndarray | None = None) -> Slice:
        """Load the clusters with a slice of requests.

        Args:
            cost: (B,G) core-seconds of the request as it ran.
            undegraded: (B,G) the same as it was chosen, which decides when degradation ends (Eq. 1).
            site: (B,) int, where the requests are served; ``None`` where there is one site.
        """
        rates = (self.scenario.traffic or (1.0,)) if self.window.traffic is None else self.window.traffic
        qps = rates[self.done % len(rates)] * self._peak
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
        self.done += 1
        return Slice(self.load, np.where(used, 1.0 - reading.dropped, 1.0).prod(axis=1))

    def shown(self) -> np.ndarray:
        """(B, 3G+1) what agents see: load over budget, degradation over the deepest level, backlog over the time-out,
        and the share of the window that has passed."""
        backlog = self.state.waiting_work / self.scenario.cores / self.scenario.protection.timeout
        parts = [
            np.minimum(self.load / self.scenario.budgets, LOAD_LIMIT),
            self.state.degradation / max(1, len(self._levels) - 1),
            np.minimum(backlog, 1.0),
            np.full((len(self.load), 1), self.done / self.window.requests),
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)


def checked_window(window: RequestWindow | int | dict | None) -> RequestWindow | None:
    """A window as it is, of so many requests, or from a mapping of its fields."""
    if window is None or isinstance(window, RequestWindow):
        return window
    if isinstance(window, dict):
        return from_plain(RequestWindow, window, "window")
    return RequestWindow(requests=window)
