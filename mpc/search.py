"""Other ways to a plan: random shooting, SLSQP, L-BFGS-B, projected gradient and cross-entropy, on the same objective.

All minimise Eq. 17 (:class:`mpc.objective.Objective`) over log prices (N,G) in [0, top] with the model's exact
derivative, by the protocol of :class:`mpc.planner.PlanningMethod`, so that :class:`mpc.MPCBalancer` runs with any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from marca_env.errors import InputError, unknown_option
from mpc.deadline import Deadline
from mpc.objective import Now, Objective
from mpc.planner import Planner, PlannerSettings, PlanningMethod, PlanResult, start_point
from mpc.predicted import ModelError, PredictedLoads

METHODS = ("scp", "shooting", "slsqp", "lbfgsb", "gradient", "cem")


def planning_method(name: str, n_clusters: int, settings: PlannerSettings, top: np.ndarray, seed: int = 0, **options):
    """The planner of a name in :data:`METHODS`.

    Args:
        name: the method; "scp" is :class:`mpc.planner.Planner`.
        n_clusters: G.
        settings: the objective, and what of the search concerns all methods.
        top: (G,) highest log prices.
        seed: of the methods that draw.
        options: of the method's class.

    Raises:
        InputError: an unknown name, or a rate limit for a method that knows none.
    """
    if name not in METHODS:
        raise InputError(unknown_option("planning method", name, METHODS))
    if name == "scp":
        return Planner(n_clusters, settings, top, **options)
    kinds: dict[str, Any] = {
        "shooting": RandomShooting,
        "slsqp": SequentialQuadratic,
        "lbfgsb": QuasiNewton,
        "gradient": ProjectedGradient,
        "cem": CrossEntropy,
    }
    if name in ("shooting", "lbfgsb", "cem"):
        options["seed"] = seed
    return kinds[name](n_clusters, settings, top, **options)


class _Method(PlanningMethod):
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
        """See :class:`mpc.planner.PlanningMethod`.

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
                raise _OutOfTime
            point = predicted.linearised(np.clip(flat, 0.0, np.tile(self.top, self.shape[0])).reshape(self.shape))
            value = self.objective(point.loads, now.load, now.target, now.emphasis)
            by_load = self.objective.gradient(point.loads, now.load, now.target, now.emphasis)
            return float(value), np.einsum("ig,igh->ih", by_load, point.slopes).ravel()

        return value_and_slope

    def _bounds(self) -> Any:
        from scipy.optimize import Bounds

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


class _OutOfTime(Exception):
    """Unwinds scipy when the deadline has passed."""


class RandomShooting(_Method):
    """The best of random sequences and the nominal one.

    Args:
        samples: sequences that are drawn, the nominal one apart; 100 in the reference code.
        spread: standard deviation of a log price around the nominal one; ``None``: prices uniform over [0, λ_max], the
            way of the reference code.
        batched: evaluate all at once; ``False``: one after the other, as the reference code does.
        seed: of the draws.
    """

    def __init__(
        self,
        n_clusters: int,
        settings: PlannerSettings,
        top: np.ndarray,
        *,
        samples: int = 100,
        spread: float | None = 0.3,
        batched: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(n_clusters, settings, top)
        if samples < 1 or (spread is not None and not spread > 0):
            raise InputError(f"shooting: samples is {samples} and spread {spread}; both must be positive")
        self.samples, self.spread, self.batched = samples, spread, batched
        self._rng = np.random.default_rng(seed)

    def _search(
        self, predicted: PredictedLoads, now: Now, start: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        shape = (self.samples, *self.shape)
        if self.spread is None:  # uniform in λ: u = log(1 + λ/s)
            drawn = np.log1p(self._rng.random(shape) * np.expm1(self.top))
        else:
            drawn = start + self.spread * self._rng.standard_normal(shape)
        tried = np.concatenate([start[None], self._allowed(drawn, now)])
        if self.batched:
            values = self._values(predicted, now, tried)
        else:
            values = np.full(len(tried), np.inf)
            for k, sequence in enumerate(tried):
                if clock.passed:
                    break
                values[k] = self._values(predicted, now, sequence)
        return tried[int(values.argmin())], self.samples, False


class CrossEntropy(_Method):
    """The cross-entropy method: draw around a mean, move mean and spread to the best draws, repeat.

    Args:
        samples: sequences a round.
        elite: share of them that mean and spread follow.
        rounds: most rounds.
        spread: standard deviation of the first round's log prices.
        seed: of the draws.
    """

    def __init__(
        self,
        n_clusters: int,
        settings: PlannerSettings,
        top: np.ndarray,
        *,
        samples: int = 64,
        elite: float = 0.15,
        rounds: int = 20,
        spread: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__(n_clusters, settings, top)
        if samples < 4 or not 0 < elite < 1 or rounds < 1 or not spread > 0:
            raise InputError(f"cem: samples {samples} ≥ 4, elite {elite} in (0, 1), rounds {rounds} ≥ 1, spread > 0")
        self.samples, self.rounds, self.spread = samples, rounds, spread
        self.kept = max(2, int(samples * elite))
        self._rng = np.random.default_rng(seed)

    def _search(
        self, predicted: PredictedLoads, now: Now, start: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        mean, spread = start, np.full(self.shape, self.spread)
        best, least = start, float(self._values(predicted, now, start))
        for k in range(self.rounds):
            drawn = self._allowed(mean + spread * self._rng.standard_normal((self.samples, *self.shape)), now)
            values = self._values(predicted, now, drawn)
            order = np.argsort(values)[: self.kept]
            if values[order[0]] < least:
                best, least = drawn[order[0]], float(values[order[0]])
            mean, spread = drawn[order].mean(0), drawn[order].std(0) + 1e-6
            if clock.passed or spread.max() < 1e-3:
                return best, k + 1, spread.max() < 1e-3
        return best, self.rounds, False


class SequentialQuadratic(_Method):
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
        from scipy.optimize import minimize

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
        except (_OutOfTime, ModelError):
            return self._allowed(best.point.reshape(self.shape), now), best.calls, False
        return self._allowed(result.x.reshape(self.shape), now), int(result.nit), bool(result.success)

    def _rate(self, now: Now) -> list[Any]:
        from scipy.optimize import LinearConstraint

        limit = self.settings.rate_limit
        if limit is None:
            return []
        n, size = self.shape
        steps = np.kron(np.eye(n) - np.eye(n, k=-1), np.eye(size))
        first = np.concatenate([now.in_force, np.zeros((n - 1) * size)])
        return [LinearConstraint(steps, first - limit, first + limit)]


class QuasiNewton(_Method):
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
        from scipy.optimize import minimize

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
            except (_OutOfTime, ModelError):
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


class ProjectedGradient(_Method):
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
        import torch

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
