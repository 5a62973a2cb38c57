"""Best policies of windows of requests, by dynamic programming over the state of the clusters.

The state between two requests is the slice, the degradation level of each cluster, and its waiting work on a grid, with
linear interpolation between the points. The requests are independent draws from the population, which the policy sees
one at a time. Shapes: B windows, U requests of the population, J joint actions, G clusters, C combinations of levels,
K points of the grid, V value functions.
"""

from __future__ import annotations

import itertools

import numpy as np

from marca_env.models.engine import Engine
from marca_env.traffic.clusters import ClusterModel, ClusterState
from marca_env.utils.errors import InputError

GRID = 5
"""Points of the grid of waiting work of each cluster."""
_MOST_PAIRS = 100_000_000
"""Pairs of state and joint action in a slice up to which a plan is made."""
_CHUNK = 1_000_000
"""Pairs that are evaluated together."""
_TIE = 1e-9
"""Currency per core-second that breaks ties in favour of the cheaper action."""


class WindowPlanner:
    """Values of every action in every state of a window, with requests that come one after the other.

    Args:
        engine: engine of a categorical scenario with a window.
        prices: (G,) λ, currency per core-second.
        grid: K.

    Raises:
        InputError: requests with numbers or a latency limit, prices that follow the load, stages at several sites, or
            too many states to plan.
    """

    def __init__(self, engine: Engine, prices: np.ndarray, grid: int = GRID) -> None:
        scenario, window = engine.scenario, engine.scenario.window
        is_plain = scenario.is_categorical and scenario.latency is None
        one_state = scenario.n_sites == 1 or scenario.agent_kind == "site"
        if window is None or window.price_rate > 0 or not is_plain or not one_state:
            raise InputError(
                f"scenario {scenario.name!r}: no card is made of this window; it takes categories for features, fixed "
                "prices, no latency limit, and stages at one site or sites as agents"
            )
        self.scenario, self.window, self.prices, self.n_points = scenario, window, prices, grid
        population, n_clusters = engine.population, len(scenario.clusters)
        self.states, self.shares = population.states, population.counts / population.counts.sum()
        self.revenue, self.cost = (x.astype(np.float64) for x in engine.true_table(population.states))
        n_levels = 1 + len(scenario.protection.levels)
        self._levels = np.indices((n_levels,) * n_clusters).reshape(n_clusters, -1).T  # (C,G)
        self._executed = np.stack([self._degraded(levels) for levels in self._levels])  # (C,J)
        self._n_levels = n_levels
        self._full = scenario.protection.timeout * scenario.cores  # (G,) core-seconds
        self._model = ClusterModel(scenario)
        rates = window.traffic or scenario.traffic or (1.0,)
        self._qps = [rates[t % len(rates)] * scenario.peak_qps for t in range(window.requests)]
        self._codes = {row.tobytes(): k for k, row in enumerate(self.states)}
        pairs = len(self._levels) * grid**n_clusters * self.revenue.size
        if pairs > _MOST_PAIRS:
            raise InputError(
                f"scenario {scenario.name!r}: a slice has {pairs:,} pairs of state and action, more than the "
                f"{_MOST_PAIRS:,} that a card is made of; use fewer clusters, states or options"
            )

    def plan(self, actions: np.ndarray | None = None) -> list[np.ndarray]:
        """Return the value functions (1,C,K, …, K) before each slice and after the last, by backward induction.

        Args:
            actions: indices of the joint actions that are allowed; ``None``: all.
        """
        shape = (len(self._levels), *(self.n_points,) * len(self._full), len(self.shares))
        combination, *points, request = np.indices(shape).reshape(len(shape), -1)
        waiting = np.stack(points, axis=1) / (self.n_points - 1) * self._full
        values = [np.zeros((1, *shape[:-1]))]
        for t in reversed(range(self.window.requests)):
            best = self._best(t, combination, waiting, request, values[0], np.zeros_like(request), actions)
            values.insert(0, (best.reshape(shape) @ self.shares)[None])
        return values

    def plan_known(self, requests: np.ndarray) -> list[np.ndarray]:
        """Return the value functions (V,C,K, …, K) of V windows whose requests (V, slices) are known in advance."""
        shape = (len(requests), len(self._levels), *(self.n_points,) * len(self._full))
        window, combination, *points = np.indices(shape).reshape(len(shape), -1)
        waiting = np.stack(points, axis=1) / (self.n_points - 1) * self._full
        values = [np.zeros(shape)]
        for t in reversed(range(self.window.requests)):
            best = self._best(t, combination, waiting, requests[window, t], values[0], window, None)
            values.insert(0, best.reshape(shape))
        return values

    def action_values(
        self, t: int, levels: np.ndarray, waiting: np.ndarray, request: np.ndarray, values: np.ndarray | None
    ) -> np.ndarray:
        """Return the value of every joint action, (B,J), less a trifle for its computation, which breaks ties.

        Args:
            t: slice.
            levels: (B,G) degradation in force.
            waiting: (B,G) waiting work, core-seconds.
            request: (B,) row of the population.
            values: (V,C,K, …, K) value function after the slice, V = 1 or B; ``None``: only the slice counts.
        """
        combination = np.ravel_multi_index(tuple(levels.T), (self._n_levels,) * levels.shape[1])
        which = np.zeros(len(request), dtype=np.int64)
        if values is not None and len(values) > 1:
            which = np.arange(len(request))
        return self._look_ahead(t, combination, waiting, request, values, which, None)

    def rows(self, states: np.ndarray) -> np.ndarray:
        """Return the row of the population of each state: (…,W) → (…)."""
        flat = np.ascontiguousarray(states.reshape(-1, states.shape[-1]))
        return np.array([self._codes[row.tobytes()] for row in flat]).reshape(states.shape[:-1])

    # -- parts ---------------------------------------------------------------------------------------------
    def _degraded(self, levels: np.ndarray) -> np.ndarray:
        """Return (J,) the joint action that runs for each joint action at the levels (G,) of the clusters."""
        runs = np.arange(self.scenario.n_joint_actions)
        for cluster, level in enumerate(levels):
            runs = self.scenario.degraded(cluster, int(level))[runs]
        return runs

    def _best(
        self,
        t: int,
        combination: np.ndarray,
        waiting: np.ndarray,
        request: np.ndarray,
        values: np.ndarray,
        which: np.ndarray,
        actions: np.ndarray | None,
    ) -> np.ndarray:
        """Return the highest value of each row, some rows at a time."""
        step = max(1, _CHUNK // self.revenue.shape[1])
        parts = [slice(k, k + step) for k in range(0, len(request), step)]
        best = [
            self._look_ahead(t, combination[p], waiting[p], request[p], values, which[p], actions).max(axis=1)
            for p in parts
        ]
        return np.concatenate(best)

    def _look_ahead(
        self,
        t: int,
        combination: np.ndarray,
        waiting: np.ndarray,
        request: np.ndarray,
        values: np.ndarray | None,
        which: np.ndarray,
        actions: np.ndarray | None,
    ) -> np.ndarray:
        """Return reward and value of the next state of each allowed action, (B, actions)."""
        asked = np.arange(self.revenue.shape[1]) if actions is None else actions
        runs = self._executed[combination][:, asked]
        cost, undegraded = self.cost[request[:, None], runs], self.cost[request][:, asked]  # (B,J,G) each
        levels, work = (np.broadcast_to(x[:, None], cost.shape) for x in (self._levels[combination], waiting))
        after, reading = self._model.step(
            ClusterState(levels, work), cost * self._qps[t], undegraded * self._qps[t], self.window.seconds
        )
        reward = self.revenue[request[:, None], runs] * np.prod(1.0 - reading.dropped, axis=-1) - cost @ self.prices
        reward = reward - _TIE * undegraded.sum(axis=-1)
        return reward if values is None else reward + self._interpolate(values, which, after)

    def _interpolate(self, values: np.ndarray, which: np.ndarray, after: ClusterState) -> np.ndarray:
        """Return the values of states (B,J) between the points of the grid."""
        n_clusters = after.degradation.shape[-1]
        combination = np.ravel_multi_index(tuple(np.moveaxis(after.degradation, -1, 0)), (self._n_levels,) * n_clusters)
        position = after.waiting_work / self._full * (self.n_points - 1)
        low = np.minimum(position.astype(np.int64), self.n_points - 2)
        above, total = position - low, np.zeros(combination.shape)
        for corner in itertools.product((0, 1), repeat=n_clusters):
            weight = np.prod([above[..., g] if up else 1.0 - above[..., g] for g, up in enumerate(corner)], axis=0)
            points = [low[..., g] + up for g, up in enumerate(corner)]
            total += weight * values[(which[:, None], combination, *points)]
        return total
