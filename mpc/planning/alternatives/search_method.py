"""The base class of the alternative searches: bounds, rate limit, the objective with its derivative, the deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import Bounds

from mpc.planning.deadline import Deadline
from mpc.planning.objective import Objective, PlanStart
from mpc.planning.planning_method import PlannerSettings, PlanningMethod, PlanResult, nominal_sequence
from mpc.planning.predicted_loads import PredictedLoads


class SearchMethod(PlanningMethod):
    """A search over log prices; a subclass implements :meth:`_search`.

    Args:
        n_clusters: G.
        settings: settings of the objective, with the horizon and the rate limit.
        top: (G,) greatest log prices.
    """

    def __init__(self, n_clusters: int, settings: PlannerSettings, top: np.ndarray) -> None:
        self.settings, self.objective = settings, Objective(settings)
        self.shape, self.top = (settings.horizon, n_clusters), np.broadcast_to(top, (n_clusters,))

    def plan(
        self,
        predicted: PredictedLoads,
        start: PlanStart,
        nominal: np.ndarray | None = None,
        deadline: Deadline | None = None,
    ) -> PlanResult:
        """Return a plan; see :class:`mpc.planning.planning_method.PlanningMethod`.

        Args:
            predicted: loads as a function of log prices.
            start: the state from which the plan starts, and its target.
            nominal: (N,G) log prices at which the search starts; ``None``: those in force.
            deadline: the clock that ends the search; ``None``: unlimited.

        Raises:
            ModelError: the model's loads are not finite.
        """
        clock = deadline or Deadline()
        nominal = nominal_sequence(start, nominal, self.shape, self.top, self.settings.rate_limit)
        predicted.linearise(nominal)  # a broken model raises here, so a failed search has another cause
        log_prices, rounds, converged = self._search(predicted, start, nominal, clock)
        plan = predicted.linearise(log_prices)
        value = float(self.objective(plan.loads, start.load, start.target, start.emphasis))
        reason = "deadline" if clock.passed else "tolerance" if converged else "iterations"
        return PlanResult(plan, value, rounds, converged, reason, clock.spent)

    def _search(
        self, predicted: PredictedLoads, start: PlanStart, nominal: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        """Return log prices (N,G), the number of rounds, and whether the method's test of convergence holds."""
        raise NotImplementedError

    def _values(self, predicted: PredictedLoads, start: PlanStart, log_prices: np.ndarray) -> np.ndarray:
        """Return J (…) at log prices (…,N,G); infinity replaces values that are not finite."""
        with np.errstate(all="ignore"):
            values = self.objective(predicted.loads(log_prices), start.load, start.target, start.emphasis)
        return np.where(np.isfinite(values), values, np.inf)

    def _value_and_gradient(
        self, predicted: PredictedLoads, start: PlanStart, clock: Deadline
    ) -> Callable[[np.ndarray], Any]:
        """Return J and its derivative as a function of flat log prices, for scipy; it raises when the time is over."""

        def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
            if clock.passed:
                raise OutOfTimeError
            clipped = np.clip(flat, 0.0, np.tile(self.top, self.shape[0])).reshape(self.shape)
            loads, slopes = predicted.linearise(clipped)[1:]
            value = self.objective(loads, start.load, start.target, start.emphasis)
            by_load = self.objective.gradient(loads, start.load, start.target, start.emphasis)
            return float(value), np.einsum("ig,igh->ih", by_load, slopes).ravel()

        return evaluate

    def _bounds(self) -> Any:
        return Bounds(np.zeros(self.shape).ravel(), np.tile(self.top, self.shape[0]))

    def _project(self, log_prices: np.ndarray, start: PlanStart) -> np.ndarray:
        """Return the sequences (…,N,G) clipped to the bounds and, minute after minute, to the rate limit."""
        clipped, limit = np.clip(log_prices, 0.0, self.top), self.settings.rate_limit
        if limit is None:
            return clipped
        before = np.clip(start.in_force, 0.0, self.top)
        for i in range(self.shape[0]):
            clipped[..., i, :] = np.clip(clipped[..., i, :], before - limit, before + limit)
            before = clipped[..., i, :]
        return clipped


class OutOfTimeError(Exception):
    """The deadline has passed during a search by scipy."""
