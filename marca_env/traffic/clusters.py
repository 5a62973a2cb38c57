"""Clusters minute by minute: what is served, what waits, what is dropped, and elastic degradation.

A cluster serves at most its cores. Work beyond them waits as backlog; backlog beyond the protection's time-out is
dropped. Overload protection raises the degradation level D by one after a minute whose load passed the trigger,
and lowers it by one once the *undegraded* load C = Ĉ + f(D) (Eq. 1, arXiv 2512.24325) would fit again. A level
takes effect in the minute after the one that caused it.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np

from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError


@dataclass(frozen=True)
class ControlObservation:
    """All that a balancer may know when it sets the prices of the next control period."""

    minute: int
    """Minute of the day that the prices will hold for, 0 … 1439."""
    qps: float
    """Requests per second of the last minute."""
    load: np.ndarray
    """(G,) Ĉ of the last minute, core-seconds per second, undegraded: measured load + f(D)."""
    budget: np.ndarray
    """(G,) core-seconds per second."""
    degradation: np.ndarray
    """(G,) int, levels that hold in the coming minute."""
    backlog: np.ndarray
    """(G,) seconds of the cluster's cores."""
    prices: np.ndarray
    """(G,) λ in force in the last minute, currency per core-second."""


@dataclass(frozen=True)
class ClusterState:
    """What a minute hands on to the next."""

    degradation: np.ndarray
    """(G,) int, levels in force; 0 is none."""
    backlog: np.ndarray
    """(G,) core-seconds of work that waits."""


@dataclass(frozen=True)
class ClusterReading:
    """What the machines report of a period. All shapes are (G,)."""

    load: np.ndarray
    """Work offered, core-seconds per second; may exceed the cores."""
    served: np.ndarray
    """Work done, core-seconds per second; at most the cores."""
    dropped: np.ndarray
    """Share of the period's work that was dropped, in [0, 1]."""


class ClusterModel:
    """The dynamics of all clusters of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.budgets = scenario.budgets  # (G,)
        self.cores = scenario.cores  # (G,)
        self.protection = scenario.protection

    def scaled(self, share: np.ndarray | float) -> ClusterModel:
        """The same clusters with this share (G,) of their cores and budgets."""
        other = copy(self)
        other.budgets, other.cores = self.budgets * share, self.cores * share
        return other

    def initial(self) -> ClusterState:
        """No backlog, nothing degraded."""
        n = len(self.cores)
        return ClusterState(degradation=np.zeros(n, dtype=np.int64), backlog=np.zeros(n))

    def step(
        self, state: ClusterState, demand: np.ndarray, equivalent: np.ndarray, seconds: float
    ) -> tuple[ClusterState, ClusterReading]:
        """Run one period, of one system or of several side by side (then the arrays are (B,G)).

        Args:
            state: what the period before left.
            demand: (G,) work offered with the levels in force, core-seconds per second.
            equivalent: (G,) the same undegraded, demand + f(D).
            seconds: length of the period.

        Raises:
            InputError: a demand that is negative or not finite, or a length that is not positive.
        """
        demand, equivalent = self._checked("demand", demand), self._checked("equivalent", equivalent)
        if not seconds > 0:
            raise InputError(f"seconds is {seconds}; a period must have a positive length")
        work = demand * seconds + state.backlog
        served = np.minimum(work, self.cores * seconds)
        waiting = work - served
        backlog = np.minimum(waiting, self.protection.timeout * self.cores)
        # The backlog that came in was within the limit, so what is dropped never exceeds this period's own work.
        share = np.divide(waiting - backlog, demand * seconds, out=np.zeros_like(work), where=demand > 0)
        reading = ClusterReading(load=demand, served=served / seconds, dropped=np.clip(share, 0.0, 1.0))
        return ClusterState(self._next_level(state.degradation, demand, equivalent), backlog), reading

    def _next_level(self, level: np.ndarray, demand: np.ndarray, equivalent: np.ndarray) -> np.ndarray:
        rise = demand > self.protection.trigger * self.budgets
        fall = ~rise & (equivalent < self.protection.release * self.budgets)
        return np.clip(level + rise.astype(np.int64) - fall, 0, len(self.protection.levels))

    def observe(
        self, minute: int, qps: float, equivalent: np.ndarray, state: ClusterState, prices: np.ndarray
    ) -> ControlObservation:
        """The observation a balancer gets after a period that left ``state``; ``minute`` is the coming one."""
        return ControlObservation(
            minute=int(minute),
            qps=float(qps),
            load=np.asarray(equivalent, dtype=np.float64),
            budget=self.budgets,
            degradation=state.degradation,
            backlog=state.backlog / self.cores,
            prices=np.asarray(prices, dtype=np.float64),
        )

    def _checked(self, name: str, value: np.ndarray) -> np.ndarray:
        value = np.asarray(value, dtype=np.float64)
        if value.shape[-1:] != self.cores.shape:
            raise InputError(f"{name} has shape {value.shape}; expected one number per cluster, {self.cores.shape}")
        if not np.all(np.isfinite(value)) or np.any(value < 0):
            raise InputError(f"{name} is {value.tolist()}; loads must be finite and not negative")
        return value
