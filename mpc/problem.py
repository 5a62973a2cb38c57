"""Eq. 17 (arXiv 2512.24325) as a convex quadratic program, compiled once and re-solved by setting parameters.

    min  Σ_i α^i (y_i − target)²  +  Σ_i w_i (y_i − y_{i−1})²  +  ρ Σ_i (u_i − ū_i)²

over log prices u (N,G) and loads y (N,G) in units of the budgets, y linear in u around the nominal sequence ū. The
weights w_i are β α^i where the damping term applies and zero elsewhere; which minutes those are depends on the loads,
so the caller assumes them for a solve and the program stays convex (:class:`Objective` is the true one).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np

from marca_env.errors import InputError, unknown_option

try:
    import cvxpy as cp
except ImportError as error:
    raise ImportError("the model-predictive balancer needs cvxpy: pip install 'marca-env[mpc]'") from error

DAMPING = ("predicted", "measured", "none")
SOLVERS = ("CLARABEL", "OSQP")


class SolverError(RuntimeError):
    """The program could not be solved."""


class InfeasibleError(SolverError):
    """No prices satisfy the bounds: widen the rate limit or the price bounds."""


class SolverFailedError(SolverError):
    """The solver gave up or broke: try the other solver, or a smaller horizon."""


@dataclass(frozen=True)
class ObjectiveSettings:
    """Eq. 17 and its two readings."""

    horizon: int = 10
    """N, minutes."""
    alpha: float = 0.4
    """α, weight of a minute relative to the one before."""
    beta: float = 8.0
    """β, weight of the damping term."""
    damping: Literal["predicted", "measured", "none"] = "predicted"
    """Where the damping term applies. ``predicted``: in each minute whose predicted load reaches the threshold;
    ``measured``: in the whole horizon when the load of the last minute did; ``none``: nowhere."""
    threshold: float = 1.0
    """Load, as a share of the budget, at which damping starts: 1 in the paper, 44/46 in the reference code."""
    margin: float = 0.0
    """The load aimed at is this share below the budget."""
    proximity: float = 1e-4
    """ρ, pull towards the nominal prices; settles prices that do not matter."""

    def __post_init__(self) -> None:
        whole = isinstance(self.horizon, int) and not isinstance(self.horizon, bool)
        if not (whole and self.horizon >= 1):
            raise InputError(f"horizon is {self.horizon!r}; it must be a whole number of minutes, at least 1")
        if not 0 < self.alpha <= 1:
            raise InputError(f"alpha is {self.alpha}; it must lie in (0, 1]")
        if not (np.isfinite(self.beta) and self.beta >= 0):
            raise InputError(f"beta is {self.beta}; it must be finite and not negative")
        if self.damping not in DAMPING:
            raise InputError(unknown_option("damping", self.damping, DAMPING))
        if not 0 <= self.margin < 1:
            raise InputError(f"margin is {self.margin}; it must lie in [0, 1), a share of the budget")
        if not (np.isfinite(self.threshold) and self.threshold > 0 and self.proximity >= 0):
            raise InputError(f"threshold is {self.threshold} and proximity {self.proximity}; they must be positive")


class Objective:
    """Eq. 17 itself, on any load sequence: what every solver of the balancing problem minimises."""

    def __init__(self, settings: ObjectiveSettings | None = None) -> None:
        self.settings = settings or ObjectiveSettings()
        self.weights = self.settings.alpha ** np.arange(self.settings.horizon)  # (N,), α^i

    def damped(self, loads: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Where the damping term applies. Loads (…,N,G) and the last load (G,) are in budgets; (…,N,G) bool."""
        s = self.settings
        if s.damping == "none":
            return np.zeros(loads.shape, dtype=bool)
        if s.damping == "measured":
            return np.broadcast_to(last >= s.threshold, loads.shape)
        return loads >= s.threshold * (1 + 1e-6)  # a load held at the budget itself is not over it

    def __call__(self, loads: np.ndarray, last: np.ndarray, target: np.ndarray | None = None) -> np.ndarray:
        """J (…) of loads (…,N,G) after the last load (G,), in units of the budgets; ``target`` (G,) as in solve."""
        s = self.settings
        before = np.concatenate([np.broadcast_to(last, loads[..., :1, :].shape), loads[..., :-1, :]], axis=-2)
        tracking = (loads - (1 - s.margin if target is None else target)) ** 2
        damping = np.where(self.damped(loads, last), (loads - before) ** 2, 0.0)
        return ((tracking + s.beta * damping) * self.weights[:, None]).sum((-2, -1))


@dataclass(frozen=True)
class Plan:
    """A solution: log prices (N,G) and the loads (N,G) in budgets that the linear model expects of them."""

    log_prices: np.ndarray
    loads: np.ndarray


class LoadProblem:
    """The quadratic program for G clusters; build it once, then :meth:`solve` it every minute.

    Args:
        n_clusters: G.
        settings: the objective.
        rate_limit: largest change of a log price from one minute to the next; ``None``: free.
        solver: "CLARABEL" (interior point) or "OSQP" (first order, warm started).

    Attributes:
        problem: the compiled cvxpy problem; it is never rebuilt.
    """

    def __init__(
        self,
        n_clusters: int,
        settings: ObjectiveSettings | None = None,
        *,
        rate_limit: float | None = None,
        solver: str = "CLARABEL",
    ) -> None:
        if solver not in SOLVERS:
            raise InputError(unknown_option("solver", solver, SOLVERS))
        if rate_limit is not None and not rate_limit > 0:
            raise InputError(f"rate_limit is {rate_limit}; it must be positive, or None for none")
        self.objective = Objective(settings)
        self.settings, self.solver, self.rate_limit = self.objective.settings, solver, rate_limit
        n, size = self.settings.horizon, n_clusters
        self.shape = (n, size)
        self._u, self._y = cp.Variable((n, size), name="log_prices"), cp.Variable((n, size), name="loads")
        self._offset = cp.Parameter((n, size), name="offset")  # ȳ − S ū
        self._slopes = [cp.Parameter((n, size), name=f"slope_{h}") for h in range(size)]  # [i, g]: ∂y_ig/∂u_ih
        self._nominal = cp.Parameter((n, size), name="nominal")
        self._low, self._high = cp.Parameter((n, size), name="low"), cp.Parameter((n, size), name="high")
        self._target = cp.Parameter((n, size), name="target")
        self._damping = cp.Parameter((n, size), nonneg=True, name="root_damping")
        self._damping_last = cp.Parameter(size, name="root_damping_times_last")
        self._previous = cp.Parameter(size, name="previous")
        self.problem = cp.Problem(cp.Minimize(self._cost()), self._constraints())
        if not self.problem.is_dcp(dpp=True):  # type: ignore[call-arg]
            raise AssertionError("the program is not DPP; it would be compiled anew at every solve")

    def _cost(self) -> cp.Expression:
        root = np.sqrt(self.objective.weights)[:, None] * np.ones(self.shape)
        tracking = cp.sum_squares(cp.multiply(root, self._y - self._target))
        # √w·y_last enters as one parameter: a product of two parameters would not be DPP.
        damping = cp.sum_squares(cp.multiply(self._damping[0], self._y[0]) - self._damping_last)
        if self.shape[0] > 1:
            damping += cp.sum_squares(cp.multiply(self._damping[1:], self._y[1:] - self._y[:-1]))
        return tracking + damping + self.settings.proximity * cp.sum_squares(self._u - self._nominal)

    def _constraints(self) -> list[cp.Constraint]:
        n, size = self.shape
        moved = sum(cp.multiply(self._slopes[h], self._u[:, [h]] @ np.ones((1, size))) for h in range(size))
        constraints = [self._y == self._offset + moved, self._u >= self._low, self._u <= self._high]
        if self.rate_limit is not None:
            constraints.append(cp.abs(self._u[0] - self._previous) <= self.rate_limit)
            if n > 1:
                constraints.append(cp.abs(self._u[1:] - self._u[:-1]) <= self.rate_limit)
        return constraints

    def solve(
        self,
        loads: np.ndarray,
        slopes: np.ndarray,
        nominal: np.ndarray,
        last: np.ndarray,
        *,
        low: np.ndarray,
        high: np.ndarray,
        damped: np.ndarray,
        target: np.ndarray | None = None,
        previous: np.ndarray | None = None,
    ) -> Plan:
        """Solve around a nominal sequence.

        Args:
            loads: (N,G) loads of the nominal prices, in budgets.
            slopes: (N,G,G) their derivative, [i, g, h] = ∂y_ig/∂u_ih.
            nominal: (N,G) log prices ū.
            last: (G,) load of the last minute, in budgets.
            low: (N,G) least log prices: the bound or the trust region, whichever is tighter; ``high`` likewise.
            high: (N,G).
            damped: (N,G) bool, where the damping term is taken to apply.
            target: (G,) loads to aim at, in budgets; ``None``: 1 less the margin.
            previous: (G,) log prices in force, needed under a rate limit.

        Raises:
            InfeasibleError: no prices within the bounds and the rate limit.
            SolverFailedError: the solver stopped without a solution, or raised.
        """
        weights = self.settings.beta * self.objective.weights[:, None] * np.asarray(damped, dtype=float)
        self._offset.value = loads - np.einsum("igh,ih->ig", slopes, nominal)
        for h, parameter in enumerate(self._slopes):
            parameter.value = slopes[:, :, h]
        self._nominal.value, self._low.value, self._high.value = nominal, low, high
        aim = 1 - self.settings.margin if target is None else target
        self._target.value = np.broadcast_to(aim, self.shape).astype(float)
        self._damping.value = np.sqrt(weights)
        self._damping_last.value = np.sqrt(weights[0]) * last
        if self.rate_limit is not None:
            if previous is None:
                raise InputError("a rate limit needs the previous log prices; pass previous=")
            self._previous.value = previous
        log_prices, planned = self._run()
        return Plan(np.clip(log_prices, low, high), planned)

    def _run(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an inaccurate solution is judged by its status, below
                self.problem.solve(solver=self.solver, warm_start=True)
        except Exception as error:  # a solver is foreign code: whatever it raises, the caller gets one type
            raise SolverFailedError(f"{self.solver} raised: {error}; try another of {SOLVERS}") from error
        status, u, y = self.problem.status, self._u.value, self._y.value
        if status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
            raise InfeasibleError(f"no prices fit ({status}); widen the rate limit or the price bounds")
        if status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or u is None or y is None:
            raise SolverFailedError(f"{self.solver} stopped with status {status!r}; try another of {SOLVERS}")
        if not np.all(np.isfinite(u)):
            raise SolverFailedError(f"{self.solver} returned values that are not finite; try another of {SOLVERS}")
        return u, y
