"""Allocation policies of a simulated day: each chooses a joint action for every kind of request, once a minute.

Shapes: M kinds of request, J joint actions, G clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from marca_env.scenario.scenario import Scenario
from marca_env.traffic.allocation import AllocationTable, allocate
from marca_env.traffic.control import Balancer, ControlObservation
from marca_env.traffic.dual_bound import dual_bound


class Policy(Protocol):
    """Chooses joint actions. It never sees the true outcomes on which policies are compared."""

    name: str

    def begin(self, budgets: np.ndarray, qps: float, chances: np.ndarray) -> np.ndarray:
        """Start a day.

        Args:
            budgets: (G,) budgets of the clusters, core-seconds per second.
            qps: requests per second that are expected in the first minute.
            chances: (M,) probability of each kind of request in the first minute.

        Returns:
            (G,) prices to start from, currency per core-second.
        """
        ...

    def choose(self, observation: ControlObservation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose for the coming minute.

        Args:
            observation: telemetry of the last minute.
            rows: kinds of request that can come.

        Returns:
            Joint action of each of ``rows``, (len(rows),), and the prices (G,) in force.
        """
        ...


class FixedPolicy:
    """The same joint action for every request, at every load."""

    def __init__(self, name: str, action: int) -> None:
        self.name, self.action = name, action

    def begin(self, budgets: np.ndarray, qps: float, chances: np.ndarray) -> np.ndarray:
        """Return prices of zero: computation is free."""
        return np.zeros(len(budgets))

    def choose(self, observation: ControlObservation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the fixed action for each of ``rows``, and the prices in force."""
        return np.full(len(rows), self.action), observation.prices


class PricedPolicy:
    """argmax Q − Σ λ_g C_g (Eq. 6, arXiv 2512.24325) with the price λ from a balancer.

    Args:
        name: for tables.
        values: (M,J) revenue that the policy expects of each kind of request, currency.
        costs: (M,J,G) cost that it expects, core-seconds.
        balancer: sets λ once a minute.
        actions: joint actions that the policy may use; ``None``: all.
    """

    def __init__(
        self,
        name: str,
        values: np.ndarray,
        costs: np.ndarray,
        balancer: Balancer,
        actions: np.ndarray | None = None,
    ) -> None:
        self.name, self.balancer = name, balancer
        self.table = AllocationTable(np.asarray(values, np.float32), np.asarray(costs, np.float32), actions)

    def begin(self, budgets: np.ndarray, qps: float, chances: np.ndarray) -> np.ndarray:
        """Return the prices that fit the budget exactly at the first minute's traffic, by the expected values."""
        self.balancer.reset()
        if qps <= 0:  # nobody comes: any price fits
            return np.zeros(len(budgets))
        rows = np.flatnonzero(chances)
        budget = np.maximum(budgets / qps, 1.001 * self._cheapest(rows, chances[rows]))
        return dual_bound(self.table.values[rows], self.table.costs[rows], chances[rows], budget, tolerance=1e-3)[1]

    def _cheapest(self, rows: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """Return the mean cost (G,) of the action that is cheapest over all clusters."""
        mean = np.einsum("m,mjg->jg", chances, self.table.costs[rows])
        return mean[mean.sum(axis=1).argmin()]

    def choose(self, observation: ControlObservation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the joint action of each of ``rows`` under the balancer's prices, and these prices."""
        prices = self.balancer.update(observation)
        return self.table.choose(prices, rows), prices


class InTurnPolicy(PricedPolicy):
    """argmax Q − Σ λ_g C_g, decided anew whenever stages report: earlier decisions stand, the rest is chosen again.

    Args:
        name: for tables.
        scenario: the system.
        tables: turn, values (M,J) and costs (M,J,G) each time that stages report, the first at turn 0; those of a joint
            action are what is expected once its decisions before the turn were taken, such as
            :meth:`agents.AllocationPolicy.tables_in_turn`.
        balancer: sets λ once a minute.
    """

    def __init__(
        self,
        name: str,
        scenario: Scenario,
        tables: Sequence[tuple[int, np.ndarray, np.ndarray]],
        balancer: Balancer,
    ) -> None:
        super().__init__(name, *tables[0][1:], balancer)
        self._later = list(tables[1:])
        shape = scenario.action_shape
        # (J,) number of the decisions before the turn that a joint action continues, and the actions that do so
        self._prefix = [np.arange(scenario.n_joint_actions) // int(np.prod(shape[turn:])) for turn, *_ in self._later]

    def choose(self, observation: ControlObservation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the joint action of each of ``rows``, decided in turn under the balancer's prices, and these."""
        actions, prices = super().choose(observation, rows)
        for (_, values, costs), prefix in zip(self._later, self._prefix, strict=True):
            taken = prefix[actions]
            for present in np.unique(taken):
                members, columns = np.flatnonzero(taken == present), np.flatnonzero(prefix == present)
                part = np.ix_(rows[members], columns)
                actions[members] = columns[allocate(values[part], costs[part], prices)]
        return actions, prices
