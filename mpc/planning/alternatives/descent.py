"""Planning by descent along the exact derivative: SLSQP and L-BFGS-B of scipy, and projected gradient by autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import LinearConstraint, minimize

from marca_env.utils.errors import InputError
from mpc.planning.alternatives.search_method import OutOfTimeError, SearchMethod
from mpc.planning.deadline import Deadline
from mpc.planning.objective import PlanStart
from mpc.planning.planning_method import PlannerSettings
from mpc.planning.predicted_loads import ModelError, PredictedLoads
from mpc.validation import at_least, check_values


class SequentialQuadratic(SearchMethod):
    """SLSQP of scipy with exact derivatives; it supports a rate limit.

    Args:
        n_clusters: G.
        settings: settings of the objective.
        top: (G,) greatest log prices.
        iterations: largest number of iterations.
    """

    def __init__(self, n_clusters: int, settings: PlannerSettings, top: np.ndarray, *, iterations: int = 100) -> None:
        super().__init__(n_clusters, settings, top)
        self.iterations = iterations

    def _search(
        self, predicted: PredictedLoads, start: PlanStart, nominal: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        best = _BestSoFar(self._value_and_gradient(predicted, start, clock), nominal)
        options = {"maxiter": self.iterations, "ftol": 1e-9}
        try:
            result = minimize(
                best,
                nominal.ravel(),
                jac=True,
                bounds=self._bounds(),
                constraints=self._rate_constraints(start),
                method="SLSQP",
                options=options,
            )
        except (OutOfTimeError, ModelError):
            return self._project(best.point.reshape(self.shape), start), best.calls, False
        return self._project(result.x.reshape(self.shape), start), int(result.nit), bool(result.success)

    def _rate_constraints(self, start: PlanStart) -> list[Any]:
        limit = self.settings.rate_limit
        if limit is None:
            return []
        n, size = self.shape
        steps = np.kron(np.eye(n) - np.eye(n, k=-1), np.eye(size))
        first = np.concatenate([start.in_force, np.zeros((n - 1) * size)])
        return [LinearConstraint(steps, first - limit, first + limit)]


class QuasiNewton(SearchMethod):
    """L-BFGS-B of scipy with exact derivatives, from the nominal sequence and optionally from random ones.

    Args:
        n_clusters: G.
        settings: settings of the objective.
        top: (G,) greatest log prices.
        starts: number of sequences from which the descent starts. The first is the nominal one; the others are random,
            in turn near the nominal one and anywhere within the bounds.
        iterations: largest number of iterations from each start.
        seed: seed of the draws.

    Raises:
        InputError: a rate limit, which L-BFGS-B does not support, or ``starts`` below 1.
    """

    def __init__(
        self,
        n_clusters: int,
        settings: PlannerSettings,
        top: np.ndarray,
        *,
        starts: int = 1,
        iterations: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__(n_clusters, settings, top)
        if settings.rate_limit is not None:
            raise InputError("lbfgsb supports no rate limit; use another method, such as scp, or drop rate_limit")
        check_values({"starts": starts}, {"starts": at_least(1)}, prefix="lbfgsb: ")
        self.starts, self.iterations = starts, iterations
        self._rng = np.random.default_rng(seed)

    def _search(
        self, predicted: PredictedLoads, start: PlanStart, nominal: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        results: list[tuple[float, np.ndarray, bool]] = []
        rounds = 0
        for k in range(self.starts):
            first = nominal if k == 0 else self._draw_start(nominal, k)
            best = _BestSoFar(self._value_and_gradient(predicted, start, clock), first)
            options = {"maxiter": self.iterations, "ftol": 1e-12, "gtol": 1e-8}
            try:
                result = minimize(
                    best, first.ravel(), jac=True, bounds=self._bounds(), method="L-BFGS-B", options=options
                )
                results.append((best.least, best.point, bool(result.success)))
                rounds += int(result.nit)
            except (OutOfTimeError, ModelError):
                results.append((best.least, best.point, False))
                break
        _, point, converged = min(results, key=lambda entry: entry[0])
        return self._project(point.reshape(self.shape), start), rounds, converged

    def _draw_start(self, nominal: np.ndarray, k: int) -> np.ndarray:
        """Return start k: odd ones are near the nominal sequence, even ones anywhere within the bounds.

        In turn, the whole sequence is shifted or each minute is drawn on its own.
        """
        shape = self.shape if k % 4 < 2 else (1, self.shape[1])
        if k % 2:
            return np.clip(nominal + self._rng.normal(0.0, 1.0, shape), 0.0, self.top)
        return np.broadcast_to(self._rng.random(shape) * self.top, self.shape)


class ProjectedGradient(SearchMethod):
    """Gradient descent by autograd through the model, with each step projected onto the bounds.

    Step sizes follow Barzilai and Borwein (1988); a step that does not lower the objective is shortened until it does.

    Args:
        n_clusters: G.
        settings: settings of the objective.
        top: (G,) greatest log prices.
        iterations: largest number of gradients.
    """

    def __init__(self, n_clusters: int, settings: PlannerSettings, top: np.ndarray, *, iterations: int = 100) -> None:
        super().__init__(n_clusters, settings, top)
        self.iterations = iterations

    def _search(
        self, predicted: PredictedLoads, start: PlanStart, nominal: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        u = np.array(nominal)
        value, slope = self._gradient(predicted, start, u)
        rate = 0.1 / max(float(np.abs(slope).max()), 1e-12)
        for k in range(self.iterations):
            if clock.passed:
                return u, k, False
            for _ in range(20):
                trial = self._project(u - rate * slope, start)
                if float(self._values(predicted, start, trial)) < value:
                    break
                rate *= 0.3
            else:
                return u, k, True
            new_value, new_slope = self._gradient(predicted, start, trial)
            step, slope_change = (trial - u).ravel(), (new_slope - slope).ravel()
            curvature = float(step @ slope_change)
            rate = float(step @ step) / curvature if curvature > 1e-16 else 2.0 * rate
            converged = value - new_value < 1e-9 + 1e-6 * value
            u, value, slope = trial, new_value, new_slope
            if converged:
                return u, k + 1, True
        return u, self.iterations, False

    def _gradient(
        self, predicted: PredictedLoads, start: PlanStart, log_prices: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Return J and its derivative (N,G) at log prices (N,G)."""
        u = torch.tensor(log_prices, dtype=torch.float64, requires_grad=True)
        loads = predicted.tensor(u)
        array = loads.detach().numpy()
        value = float(self.objective(array, start.load, start.target, start.emphasis))
        by_load = self.objective.gradient(array, start.load, start.target, start.emphasis)
        loads.backward(torch.as_tensor(by_load))
        if u.grad is None or not (np.isfinite(value) and bool(torch.isfinite(u.grad).all())):
            raise ModelError
        return value, u.grad.numpy()


class _BestSoFar:
    """A function that remembers its lowest value, so that an interrupted search does not lose it."""

    def __init__(self, function: Callable[[np.ndarray], Any], point: np.ndarray) -> None:
        self.function, self.point, self.least, self.calls = function, np.ravel(point), np.inf, 0

    def __call__(self, flat: np.ndarray) -> Any:
        value, slope = self.function(flat)
        self.calls += 1
        if value < self.least:
            self.least, self.point = value, np.array(flat)
        return value, slope
