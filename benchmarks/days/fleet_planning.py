"""Best known policies of a fleet whose sites share one cluster: one price for all sites, by dynamic programming.

At a price μ of computation every site takes the option of the highest revenue less μ times its computation. What is
best for the fleet is then one number for each state of the cluster: the slice, the degradation level, and the waiting
work on a grid. A price that depends on the state alone needs no communication, because every site observes the state;
one that also depends on the requests of all sites needs a central controller. Shapes: B windows, N sites, J joint
actions of a site, L levels, P prices, K points of the grid, M drawn slices, U requests of the population.
"""

from __future__ import annotations

import numpy as np

from benchmarks.days.window_planning import WindowPlanner
from marca_env.envs.fleet_env import SiteRequests
from marca_env.models.engine import Engine
from marca_env.traffic.clusters import ClusterModel, ClusterState
from marca_env.utils.errors import InputError

GRID, PRICES, SLICES = 12, 40, 2000
"""K, P and M."""


class FleetPlanner:
    """Prices of computation that are best for a fleet.

    Args:
        engine: engine of a scenario whose agents are sites that share one cluster.
        prices: (1,) λ of the reward, currency per core-second.
        seed: seed of the drawn slices.

    Raises:
        InputError: several clusters, or a window of which no card is made (:class:`WindowPlanner`).
    """

    def __init__(self, engine: Engine, prices: np.ndarray, seed: int) -> None:
        scenario = engine.scenario
        if len(scenario.clusters) > 1:
            raise InputError(
                f"scenario {scenario.name!r}: {len(scenario.clusters)} clusters; the card of a fleet is made for one "
                "cluster that all sites share"
            )
        self.single = WindowPlanner(engine, prices)
        self.scenario, self.window = scenario, self.single.window
        requests = SiteRequests(scenario, engine.population)
        self._shares, self._weights = requests.shares, requests.shares * len(requests.shares)
        self._revenue, self._cost = self.single.revenue - self.single.cost @ prices, self.single.cost[:, :, 0]
        self._levels = 1 + len(scenario.protection.levels)
        self.actions = self._actions()  # (L,P,U)
        drawn = self.single.rows(requests.draw(np.random.default_rng(seed), SLICES))  # (M,N)
        taken = self.actions[:, :, drawn]  # (L,P,M,N)
        self._rewards = self._revenue[drawn, taken] @ self._weights  # (L,P,M)
        self._demand = self._cost[drawn, taken] @ self._shares * scenario.peak_qps
        self._model = ClusterModel(scenario)
        self._full = float(scenario.protection.timeout * scenario.cores[0])
        rates = self.window.traffic or scenario.traffic or (1.0,)
        self._rates = [rates[t % len(rates)] for t in range(self.window.requests)]

    def plan(self, *, central: bool, far_sighted: bool = True) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the value functions (L,K) before each slice and after the last, and the best prices (slices,L,K).

        Args:
            central: whether the price may depend on the requests of all sites; then none is best in general.
            far_sighted: whether later slices count.
        """
        values = [np.zeros((self._levels, GRID))]
        best = np.zeros((len(self._rates), self._levels, GRID), dtype=np.int64)
        for t in reversed(range(len(self._rates))):
            value = np.zeros_like(values[0])
            for level, k in np.ndindex(value.shape):
                waiting = k / (GRID - 1) * self._full
                after = values[0] if far_sighted else None
                gain = self._gain(level, waiting, self._rewards[level], self._demand[level] * self._rates[t], after)
                mean = gain.mean(axis=1)
                best[t, level, k] = mean.argmax()
                value[level, k] = gain.max(axis=0).mean() if central else mean.max()
            values.insert(0, value)
        return values, best

    def priced_actions(
        self, best: np.ndarray, t: int, level: np.ndarray, waiting: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Return the joint action (B,N) of every site at the best price of the state.

        Args:
            best: (slices,L,K) indices of prices.
            t: slice.
            level: (B,) degradation in force.
            waiting: (B,) waiting work, core-seconds.
            rows: (B,N) row of the population of each request.
        """
        point = np.rint(waiting / self._full * (GRID - 1)).astype(np.int64)
        return self.actions[level[:, None], best[t, level, point][:, None], rows]

    def central_actions(
        self, values: np.ndarray, t: int, level: np.ndarray, waiting: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Return the joint action (B,N) of every site at the price that is best for these requests.

        Args:
            values: (L,K) value function after the slice.
            t: slice.
            level: (B,) degradation in force.
            waiting: (B,) waiting work, core-seconds.
            rows: (B,N) row of the population of each request.
        """
        taken = self.actions[level[:, None, None], np.arange(PRICES)[:, None], rows[:, None]]  # (B,P,N)
        reward = self._revenue[rows[:, None], taken] @ self._weights
        demand = self._cost[rows[:, None], taken] @ self._shares * self.scenario.peak_qps * self._rates[t]
        gain = self._gain(level[:, None], waiting[:, None], reward, demand, values)
        return taken[np.arange(len(rows)), gain.argmax(axis=1)]

    # -- parts ---------------------------------------------------------------------------------------------
    def _actions(self) -> np.ndarray:
        """Return (L,P,U) the joint action of each request at each level and price.

        An action that degradation would change is not asked for: it would run as another one, and look like more load.
        """
        allowed = np.stack(
            [self.scenario.degraded(0, level) == np.arange(self._revenue.shape[1]) for level in range(self._levels)]
        )
        by_cost = np.argsort(self._cost, axis=1)
        steps = np.diff(np.take_along_axis(self._revenue, by_cost, axis=1), axis=1)
        ratio = steps / np.maximum(np.diff(np.take_along_axis(self._cost, by_cost, axis=1), axis=1), 1e-12)
        useful = ratio[ratio > 0]
        prices = np.append(0.0, np.geomspace(np.quantile(useful, 0.001), useful.max() * 1.01, PRICES - 1))
        net = self._revenue - (prices[:, None, None] + 1e-9) * self._cost  # (P,U,J); a trifle breaks ties
        return np.stack([np.where(options, net, -np.inf).argmax(axis=2) for options in allowed])

    def _gain(
        self,
        level: np.ndarray | int,
        waiting: np.ndarray | float,
        reward: np.ndarray,
        demand: np.ndarray,
        values: np.ndarray | None,
    ) -> np.ndarray:
        """Return reward net of drops, and the value (L,K) of the next state, for loads of any shape."""
        levels, work = (np.broadcast_to(x, demand.shape)[..., None] for x in (level, waiting))
        state = ClusterState(levels, work)
        after, reading = self._model.step(state, demand[..., None], demand[..., None], self.window.seconds)
        gain = reward * (1.0 - reading.dropped[..., 0])
        if values is None:
            return gain
        position = after.waiting_work[..., 0] / self._full * (GRID - 1)
        low = np.minimum(position.astype(np.int64), GRID - 2)
        above, next_level = position - low, after.degradation[..., 0]
        return gain + values[next_level, low] * (1.0 - above) + values[next_level, low + 1] * above
