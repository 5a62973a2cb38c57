"""What all searches for a plan share: bounds, rate limit, the objective with its exact derivative, the clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import Bounds

from mpc.planning.deadline import Deadline
from mpc.planning.objective import Now, Objective
from mpc.planning.predicted_loads import PredictedLoads
from mpc.planning.scp import PlannerSettings, PlanningMethod, PlanResult, start_point


class SearchMethod(PlanningMethod):
    """What the methods share: bounds, start, and how a result is made."""

    def __init__(self, n_clusters: int, settings: PlannerSettings, top: np.ndarray) -> None:
        self.settings, self.objective = settings, Objective(settings)
        self.shape, self.top = (settings.horizon, n_clusters), np.broadcast_to(top, (n_clusters,))

    def plan(
        self,
        predicted: PredictedLoads,
        now: Now,
        nominal: np.ndarray | None = None,
        deadline: Deadline | None = None,
    ) -> PlanResult:
        """See :class:`mpc.planning.scp.PlanningMethod`.

        Raises:
            ModelError: the model's loads are not finite.
        """
        clock = deadline or Deadline()
        start = start_point(now, nominal, self.shape, self.top, self.settings.rate_limit)
        predicted.linearised(start)  # a broken model is told apart from a failed search
        log_prices, rounds, converged = self._search(predicted, now, start, clock)
        point = predicted.linearised(log_prices)
        value = float(self.objective(point.loads, now.load, now.target, now.emphasis))
        reason = "deadline" if clock.passed else "tolerance" if converged else "iterations"
        return PlanResult(point, value, rounds, converged, reason, clock.spent)

    def _search(
        self, predicted: PredictedLoads, now: Now, start: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        """Log prices (N,G), rounds, and whether the method's own test of convergence holds."""
        raise NotImplementedError

    def _values(self, predicted: PredictedLoads, now: Now, log_prices: np.ndarray) -> np.ndarray:
        """J (…) of log prices (…,N,G); infinite where it is not a number."""
        with np.errstate(all="ignore"):
            values = self.objective(predicted.loads(log_prices), now.load, now.target, now.emphasis)
        return np.where(np.isfinite(values), values, np.inf)

    def _descent(self, predicted: PredictedLoads, now: Now, clock: Deadline) -> Callable[[np.ndarray], Any]:
        """J and its derivative of flat log prices, for scipy; it stops the search when the time is over."""

        def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
            if clock.passed:
                raise OutOfTimeError
            point = predicted.linearised(np.clip(flat, 0.0, np.tile(self.top, self.shape[0])).reshape(self.shape))
            value = self.objective(point.loads, now.load, now.target, now.emphasis)
            by_load = self.objective.gradient(point.loads, now.load, now.target, now.emphasis)
            return float(value), np.einsum("ig,igh->ih", by_load, point.slopes).ravel()

        return value_and_slope

    def _bounds(self) -> Any:
        return Bounds(np.zeros(self.shape).ravel(), np.tile(self.top, self.shape[0]))

    def _allowed(self, log_prices: np.ndarray, now: Now) -> np.ndarray:
        """The nearest sequences (…,N,G) within the bounds and, minute after minute, the rate limit."""
        clipped, limit = np.clip(log_prices, 0.0, self.top), self.settings.rate_limit
        if limit is None:
            return clipped
        before = np.clip(now.in_force, 0.0, self.top)
        for i in range(self.shape[0]):
            clipped[..., i, :] = np.clip(clipped[..., i, :], before - limit, before + limit)
            before = clipped[..., i, :]
        return clipped


class OutOfTimeError(Exception):
    """Unwinds scipy when the deadline has passed."""
