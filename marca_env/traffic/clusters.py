"""Clusters minute by minute: what is served, what waits, what is dropped, and elastic degradation.

A cluster serves at most its cores. Work beyond them waits; waiting work beyond the time-out of overload protection is
dropped. Overload protection raises the degradation level D by one after a minute whose load passed the trigger. It
lowers D by one once the *undegraded* load C = Ĉ + f(D) (Eq. 1, arXiv 2512.24325) would fit again. A level takes effect
in the minute after the one that caused it.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np

from marca_env.scenario.scenario import Scenario
from marca_env.traffic.control import ControlObservation
from marca_env.utils.errors import InputError


@dataclass(frozen=True)
class ClusterState:
    """State of the clusters between two minutes."""

    degradation: np.ndarray
    """(G,) int, degradation levels in force; 0 is none."""
    waiting_work: np.ndarray
    """(G,) work that waits, core-seconds. Divided by the cores it is the backlog, in seconds."""


@dataclass(frozen=True)
class ClusterReading:
    """Measurements of the machines over a period. All shapes are (G,)."""

    load: np.ndarray
    """Work offered, core-seconds per second; may exceed the cores."""
    served: np.ndarray
    """Work done, core-seconds per second; at most the cores."""
    dropped: np.ndarray
    """Share of the period's work that was dropped, in [0, 1]."""


class ClusterModel:
    """Dynamics of all clusters of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.budgets = scenario.budgets  # (G,)
        self.cores = scenario.cores  # (G,)
        self.protection = scenario.protection

    def scaled(self, share: np.ndarray | float) -> ClusterModel:
        """Return the same clusters with this share (G,) of their cores and budgets."""
        scaled = copy(self)
        scaled.budgets, scaled.cores = self.budgets * share, self.cores * share
        return scaled

    def initial(self) -> ClusterState:
        """Return the state in which no work waits and nothing is degraded."""
        n = len(self.cores)
        return ClusterState(degradation=np.zeros(n, dtype=np.int64), waiting_work=np.zeros(n))

    def step(
        self, state: ClusterState, demand: np.ndarray, equivalent: np.ndarray, seconds: float
    ) -> tuple[ClusterState, ClusterReading]:
        """Run one period, of one system or of several side by side (then the arrays are (B,G)).

        Args:
            state: state after the period before.
            demand: (G,) work offered with the levels in force, core-seconds per second.
            equivalent: (G,) the same work undegraded, demand + f(D).
            seconds: length of the period.

        Returns:
            The state after the period, and the measurements of the period.

        Raises:
            InputError: a demand that is negative or not finite, or a length that is not positive.
        """
        demand, equivalent = self._checked("demand", demand), self._checked("equivalent", equivalent)
        if not seconds > 0:
            raise InputError(f"seconds is {seconds}; use a period of positive length")
        work = demand * seconds + state.waiting_work
        served = np.minimum(work, self.cores * seconds)
        unserved = work - served
        waiting = np.minimum(unserved, self.protection.timeout * self.cores)
        # The work that already waited was within the limit, so what is dropped never exceeds this period's own work.
        share = np.divide(unserved - waiting, demand * seconds, out=np.zeros_like(work), where=demand > 0)
        reading = ClusterReading(load=demand, served=served / seconds, dropped=np.clip(share, 0.0, 1.0))
        return ClusterState(self._next_level(state.degradation, demand, equivalent), waiting), reading

    def _next_level(self, level: np.ndarray, demand: np.ndarray, equivalent: np.ndarray) -> np.ndarray:
        rise = demand > self.protection.trigger * self.budgets
        fall = ~rise & (equivalent < self.protection.release * self.budgets)
        return np.clip(level + rise.astype(np.int64) - fall, 0, len(self.protection.levels))

    def observe(
        self, minute: int, qps: float, equivalent: np.ndarray, state: ClusterState, prices: np.ndarray
    ) -> ControlObservation:
        """Return what a balancer observes after a period that left ``state``.

        Args:
            minute: minute of the day of the coming period.
            qps: requests per second of the period.
            equivalent: (G,) undegraded load of the period, core-seconds per second.
            state: state after the period.
            prices: (G,) prices of the period, currency per core-second.
        """
        return ControlObservation(
            minute=int(minute),
            qps=float(qps),
            load=np.asarray(equivalent, dtype=np.float64),
            budget=self.budgets,
            degradation=state.degradation,
            backlog=state.waiting_work / self.cores,
            prices=np.asarray(prices, dtype=np.float64),
        )

    def _checked(self, name: str, value: np.ndarray) -> np.ndarray:
        value = np.asarray(value, dtype=np.float64)
        if value.shape[-1:] != self.cores.shape:
            raise InputError(f"{name} has shape {value.shape}; give one number per cluster, {self.cores.shape}")
        if not np.all(np.isfinite(value)) or np.any(value < 0):
            raise InputError(f"{name} is {value.tolist()}; give loads that are finite and not negative")
        return value
