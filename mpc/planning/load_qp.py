"""The convex quadratic program of Eq. 17 (arXiv 2512.24325) around a nominal price sequence, compiled once.

    min  Σ_i α^i (y_i − target)²  +  Σ_i w_i (y_i − y_{i−1})²  +  ρ Σ_i (u_i − ū_i)²

over log prices u (N,G) and loads y (N,G) as fractions of the budgets, with y linear in u around the nominal sequence ū.
The weights w_i are β α^i where the damping term applies and zero elsewhere. The set of damped minutes depends on the
loads; the caller fixes it for each solution, so the program stays convex. The true objective is
:class:`mpc.planning.objective.Objective`.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from marca_env.utils.errors import InputError, unknown_option

try:
    import cvxpy as cp
except ImportError as error:
    raise ImportError("the model-predictive balancer needs cvxpy: pip install 'marca-env[mpc]'") from error

from mpc.planning import compiled_qp
from mpc.planning.active_set import solve_active_set
from mpc.planning.objective import Objective, ObjectiveSettings

SOLVERS = ("CLARABEL", "OSQP")
log = logging.getLogger(__name__)


class SolverError(RuntimeError):
    """The quadratic program could not be solved."""


class InfeasibleError(SolverError):
    """No prices satisfy the constraints; widen the rate limit or the price bounds."""


class SolverFailedError(SolverError):
    """The solver stopped without a solution; try the other solver or a shorter horizon."""


class TimeLimitError(SolverError):
    """The solver ran out of time; raise the deadline or shorten the horizon."""


@dataclass(frozen=True)
class QPSolution:
    """A solution of the quadratic program."""

    log_prices: np.ndarray
    """(N,G)."""
    loads: np.ndarray
    """(N,G) loads as fractions of the budgets, by the linear model."""


class LoadQP:
    """The quadratic program for G clusters; build it once, then :meth:`solve` it every minute.

    Args:
        n_clusters: G.
        settings: the settings of the objective.
        rate_limit: largest change of a log price from one minute to the next; ``None``: no limit.
        solver: "CLARABEL" (interior point) or "OSQP" (first order, warm-started).
        direct: solve by :func:`mpc.planning.active_set.solve_active_set`. The solver is used under a rate limit, for
            large programs and where the active set does not settle. The minimum is the same.

    Attributes:
        active_set: that function; ``None``: every program goes to the solver.
        problem: the cvxpy problem; it is built once.
        compiled: the compiled form of ``problem``. ``None`` if this version of cvxpy compiles to another form; then
            ``problem.solve`` is used, which is several times slower.

    Raises:
        InputError: an unknown solver, or a rate limit that is not positive.
    """

    def __init__(
        self,
        n_clusters: int,
        settings: ObjectiveSettings | None = None,
        *,
        rate_limit: float | None = None,
        solver: str = "CLARABEL",
        direct: bool = True,
    ) -> None:
        if solver not in SOLVERS:
            raise InputError(unknown_option("solver", solver, SOLVERS))
        if rate_limit is not None and not rate_limit > 0:
            raise InputError(f"rate_limit is {rate_limit}; it must be positive, or None for no limit")
        self.objective = Objective(settings)
        self.settings, self.solver, self.rate_limit = self.objective.settings, solver, rate_limit
        self.active_set = solve_active_set if direct and rate_limit is None else None
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
            raise AssertionError("the program is not DPP; cvxpy would compile it again for every solution")
        self.compiled: compiled_qp.CompiledQP | None = None
        try:
            self.compiled = compiled_qp.CompiledQP(self.problem, (self._u, self._y), solver)
        except compiled_qp.UnsupportedError as error:
            log.warning("%s; solving by cvxpy, more slowly", error)

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
        by_price = sum(cp.multiply(self._slopes[h], self._u[:, [h]] @ np.ones((1, size))) for h in range(size))
        constraints = [self._y == self._offset + by_price, self._u >= self._low, self._u <= self._high]
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
        emphasis: Any = 1.0,
        previous: np.ndarray | None = None,
        time_limit: float = np.inf,
    ) -> QPSolution:
        """Solve the program around a nominal sequence.

        Args:
            loads: (N,G) loads of the nominal prices, as fractions of the budgets.
            slopes: (N,G,G) their derivative, [i, g, h] = ∂y_ig/∂u_ih.
            nominal: (N,G) log prices ū.
            last: (G,) load of the last minute, as a fraction of the budget.
            low: (N,G) least log prices: the price bound or the trust region, whichever is tighter.
            high: (N,G) greatest log prices.
            damped: (N,G) bool, where the damping term is assumed to apply.
            target: (G,) or (N,G) loads to aim at, as fractions of the budgets; ``None``: 1 less the margin.
            emphasis: (N,) factor of the damping weight, or a number.
            previous: (G,) log prices in force; required under a rate limit.
            time_limit: time allowed to the solver, seconds.

        Raises:
            InputError: no ``previous`` under a rate limit.
            InfeasibleError: no prices satisfy the bounds and the rate limit.
            SolverFailedError: the solver stopped without a solution, or raised.
            TimeLimitError: the solver ran out of time.
        """
        damping = self.objective.damping_weights(np.asarray(damped, dtype=float), emphasis)
        aim = np.broadcast_to(1 - self.settings.margin if target is None else target, self.shape).astype(float)
        if self.active_set is not None:
            log_prices = self.active_set(
                loads,
                slopes,
                nominal,
                last,
                low=low,
                high=high,
                target=aim,
                weights=self.objective.weights,
                damping=damping,
                proximity=self.settings.proximity,
            )
            if log_prices is not None:
                change = np.einsum("igh,ih->ig", slopes, log_prices - nominal)
                return QPSolution(np.clip(log_prices, low, high), loads + change)
        root = np.sqrt(damping)
        values = {
            self._offset: loads - np.einsum("igh,ih->ig", slopes, nominal),
            **{parameter: slopes[:, :, h] for h, parameter in enumerate(self._slopes)},
            self._nominal: nominal,
            self._low: low,
            self._high: high,
            self._target: aim,
            self._damping: root,
            self._damping_last: root[0] * last,
        }
        if self.rate_limit is not None:
            if previous is None:
                raise InputError("a rate limit needs the previous log prices; pass previous=")
            values[self._previous] = previous
        log_prices, expected_loads = self._solve_checked(values, time_limit)
        return QPSolution(np.clip(log_prices, low, high), expected_loads)

    def _solve_checked(
        self, values: dict[cp.Parameter, np.ndarray], time_limit: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of u and y, or raise the error of the solver's status."""
        try:
            status, (u, y) = self._call_solver(values, time_limit)
        except Exception as error:  # a solver may raise anything; the caller gets one type
            raise SolverFailedError(f"{self.solver} raised: {error}; try another of {SOLVERS}") from error
        if status == compiled_qp.INFEASIBLE:
            raise InfeasibleError("no prices satisfy the constraints; widen the rate limit or the price bounds")
        if status == compiled_qp.TIME_LIMIT:
            raise TimeLimitError(f"{self.solver} ran longer than {time_limit:.3g} s; raise the deadline")
        if status not in (compiled_qp.OPTIMAL, compiled_qp.INACCURATE):
            raise SolverFailedError(f"{self.solver} stopped without a solution; try another of {SOLVERS}")
        if not np.all(np.isfinite(u)):
            raise SolverFailedError(f"{self.solver} returned values that are not finite; try another of {SOLVERS}")
        return u, y

    def _call_solver(self, values: dict[cp.Parameter, np.ndarray], time_limit: float) -> tuple[str, list[Any]]:
        """Return the status and the values of u and y."""
        if self.compiled is not None:
            return self.compiled.solve(values, time_limit)
        for parameter, value in values.items():
            parameter.value = value
        limit = {"time_limit": float(min(time_limit, 1e6))}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the status tells whether a solution is inaccurate
            self.problem.solve(solver=self.solver, warm_start=True, **limit)
        status = {
            cp.OPTIMAL: compiled_qp.OPTIMAL,
            cp.OPTIMAL_INACCURATE: compiled_qp.INACCURATE,
            cp.INFEASIBLE: compiled_qp.INFEASIBLE,
            cp.INFEASIBLE_INACCURATE: compiled_qp.INFEASIBLE,
            cp.USER_LIMIT: compiled_qp.TIME_LIMIT,
        }.get(self.problem.status, compiled_qp.FAILED)
        solution = [self._u.value, self._y.value]
        return (compiled_qp.FAILED if any(x is None for x in solution) else status), solution
