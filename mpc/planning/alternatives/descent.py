"""Plans by descent along the exact derivative: SLSQP and L-BFGS-B of scipy, and projected gradient through autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import LinearConstraint, minimize

from marca_env.utils.errors import InputError
from mpc.planning.alternatives.search_method import OutOfTimeError, SearchMethod
from mpc.planning.deadline import Deadline
from mpc.planning.objective import Now
from mpc.planning.predicted_loads import ModelError, PredictedLoads
from mpc.planning.scp import PlannerSettings


class SequentialQuadratic(SearchMethod):
    """SLSQP of scipy with exact derivatives; knows the rate limit.

    Args:
        iterations: most iterations.
    """

    def __init__(self, n_clusters: int, settings: PlannerSettings, top: np.ndarray, *, iterations: int = 100) -> None:
        super().__init__(n_clusters, settings, top)
        self.iterations = iterations

    def _search(
        self, predicted: PredictedLoads, now: Now, start: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        best = _Best(self._descent(predicted, now, clock), start)
        options = {"maxiter": self.iterations, "ftol": 1e-9}
        try:
            result = minimize(
                best,
                start.ravel(),
                jac=True,
                bounds=self._bounds(),
                constraints=self._rate(now),
                method="SLSQP",
                options=options,
            )
        except (OutOfTimeError, ModelError):
            return self._allowed(best.point.reshape(self.shape), now), best.calls, False
        return self._allowed(result.x.reshape(self.shape), now), int(result.nit), bool(result.success)

    def _rate(self, now: Now) -> list[Any]:
        limit = self.settings.rate_limit
        if limit is None:
            return []
        n, size = self.shape
        steps = np.kron(np.eye(n) - np.eye(n, k=-1), np.eye(size))
        first = np.concatenate([now.in_force, np.zeros((n - 1) * size)])
        return [LinearConstraint(steps, first - limit, first + limit)]


class QuasiNewton(SearchMethod):
    """L-BFGS-B of scipy with exact derivatives, from the nominal sequence and, if wished, from random ones.

    Args:
        starts: sequences that it is started from; the first is the nominal one, the second lies on the model's way to
            the budget's underside, the others are drawn.
        iterations: most iterations of a start.
        seed: of the draws.

    Raises:
        InputError: a rate limit, which its box of bounds cannot express.
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
            raise InputError("lbfgsb knows no rate limit; choose another method, such as scp, or drop rate_limit")
        if starts < 1:
            raise InputError(f"lbfgsb: starts is {starts}; it must be at least 1")
        self.starts, self.iterations = starts, iterations
        self._rng = np.random.default_rng(seed)

    def _search(
        self, predicted: PredictedLoads, now: Now, start: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        found: list[tuple[float, np.ndarray, bool]] = []
        rounds = 0
        for k in range(self.starts):
            begin = start if k == 0 else self._drawn(start, k)
            best = _Best(self._descent(predicted, now, clock), begin)
            options = {"maxiter": self.iterations, "ftol": 1e-12, "gtol": 1e-8}
            try:
                result = minimize(
                    best, begin.ravel(), jac=True, bounds=self._bounds(), method="L-BFGS-B", options=options
                )
                found.append((best.least, best.point, bool(result.success)))
                rounds += int(result.nit)
            except (OutOfTimeError, ModelError):
                found.append((best.least, best.point, False))
                break
        _, point, converged = min(found, key=lambda entry: entry[0])
        return self._allowed(point.reshape(self.shape), now), rounds, converged

    def _drawn(self, start: np.ndarray, k: int) -> np.ndarray:
        """A start: around the nominal sequence, or anywhere, in turn; a whole sequence shifted or each minute apart."""
        shape = self.shape if k % 4 < 2 else (1, self.shape[1])
        if k % 2:
            return np.clip(start + self._rng.normal(0.0, 1.0, shape), 0.0, self.top)
        return np.broadcast_to(self._rng.random(shape) * self.top, self.shape)


class ProjectedGradient(SearchMethod):
    """Gradient descent through the model by automatic differentiation, each step projected onto the bounds.

    Steps follow Barzilai and Borwein (1988); one that does not lower the objective is cut until it does.

    Args:
        iterations: most gradients.
    """

    def __init__(self, n_clusters: int, settings: PlannerSettings, top: np.ndarray, *, iterations: int = 100) -> None:
        super().__init__(n_clusters, settings, top)
        self.iterations = iterations

    def _search(
        self, predicted: PredictedLoads, now: Now, start: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        u = np.array(start)
        value, slope = self._gradient(predicted, now, u)
        rate = 0.1 / max(float(np.abs(slope).max()), 1e-12)
        for k in range(self.iterations):
            if clock.passed:
                return u, k, False
            for _ in range(20):
                trial = self._allowed(u - rate * slope, now)
                lower = float(self._values(predicted, now, trial))
                if lower < value:
                    break
                rate *= 0.3
            else:
                return u, k, True
            new_value, new_slope = self._gradient(predicted, now, trial)
            moved, turned = (trial - u).ravel(), (new_slope - slope).ravel()
            curvature = float(moved @ turned)
            rate = float(moved @ moved) / curvature if curvature > 1e-16 else 2.0 * rate
            done = value - new_value < 1e-9 + 1e-6 * value
            u, value, slope = trial, new_value, new_slope
            if done:
                return u, k + 1, True
        return u, self.iterations, False

    def _gradient(self, predicted: PredictedLoads, now: Now, log_prices: np.ndarray) -> tuple[float, np.ndarray]:
        u = torch.tensor(log_prices, dtype=torch.float64, requires_grad=True)
        loads = predicted.tensor(u)
        seen = loads.detach().numpy()
        value = float(self.objective(seen, now.load, now.target, now.emphasis))
        by_load = self.objective.gradient(seen, now.load, now.target, now.emphasis)
        loads.backward(torch.as_tensor(by_load))
        if u.grad is None or not (np.isfinite(value) and bool(torch.isfinite(u.grad).all())):
            raise ModelError("predicted loads are not finite; fit the model on a log that covers these prices")
        return value, u.grad.numpy()


class _Best:
    """Calls a function and keeps the lowest value that it saw, which an interrupted search would lose."""

    def __init__(self, function: Callable[[np.ndarray], Any], start: np.ndarray) -> None:
        self.function, self.point, self.least, self.calls = function, np.ravel(start), np.inf, 0

    def __call__(self, flat: np.ndarray) -> Any:
        value, slope = self.function(flat)
        self.calls += 1
        if value < self.least:
            self.least, self.point = value, np.array(flat)
        return value, slope
