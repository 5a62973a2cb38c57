"""Eq. 17 (arXiv 2512.24325) as a convex quadratic compiled_qp, compiled once and re-solved by setting parameters.

    min  Σ_i α^i (y_i − target)²  +  Σ_i w_i (y_i − y_{i−1})²  +  ρ Σ_i (u_i − ū_i)²

over log prices u (N,G) and loads y (N,G) in units of the budgets, y linear in u around the nominal sequence ū. The
weights w_i are β α^i where the damping term applies and zero elsewhere; which minutes those are depends on the loads,
so the caller assumes them for a solve and the program stays convex (:class:`mpc.planning.objective.Objective` is the true one).
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
from mpc.planning.active_set import closed_form
from mpc.planning.objective import Objective, ObjectiveSettings

__all__ = ["InfeasibleError", "LoadProblem", "Objective", "ObjectiveSettings", "Plan", "SolverError"]
SOLVERS = ("CLARABEL", "OSQP")
log = logging.getLogger(__name__)


class SolverError(RuntimeError):
    """The program could not be solved."""


class InfeasibleError(SolverError):
    """No prices satisfy the bounds: widen the rate limit or the price bounds."""


class SolverFailedError(SolverError):
    """The solver gave up or broke: try the other solver, or a smaller horizon."""


class TimeLimitError(SolverError):
    """The solver ran out of time: raise the deadline, or shorten the horizon."""


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
        direct: solve by :func:`mpc.planning.active_set.closed_form`, and ask the solver where that declines: under a rate
            limit, and where the program is large or its active set does not settle. The minimum is the same.

    Attributes:
        closed_form: that function; ``None``: every program goes to the solver.
        problem: the compiled cvxpy problem; it is never rebuilt.
        program: its compiled form, which solves are sent to; ``None`` where this cvxpy compiles to another form, and
            ``problem.solve`` does the work, correctly but several times slower.
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
            raise InputError(f"rate_limit is {rate_limit}; it must be positive, or None for none")
        self.objective = Objective(settings)
        self.settings, self.solver, self.rate_limit = self.objective.settings, solver, rate_limit
        self.closed_form = closed_form if direct and rate_limit is None else None
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
        self.program: compiled_qp.CompiledProgram | None = None
        try:
            self.program = compiled_qp.CompiledProgram(self.problem, (self._u, self._y), solver)
        except compiled_qp.UnsupportedError as error:
            log.warning("%s; solving through cvxpy, more slowly", error)

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
        emphasis: Any = 1.0,
        previous: np.ndarray | None = None,
        time_limit: float = np.inf,
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
            target: (G,) or (N,G) loads to aim at, in budgets; ``None``: 1 less the margin.
            emphasis: (N,) factor of the damping weight, or a number.
            previous: (G,) log prices in force, needed under a rate limit.
            time_limit: seconds that the solver may take.

        Raises:
            InfeasibleError: no prices within the bounds and the rate limit.
            SolverFailedError: the solver stopped without a solution, or raised.
            TimeLimitError: it ran out of time.
        """
        damping = self.objective.damping_weights(np.asarray(damped, dtype=float), emphasis)
        aim = np.broadcast_to(1 - self.settings.margin if target is None else target, self.shape).astype(float)
        if self.closed_form is not None:
            log_prices = self.closed_form(
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
                moved = np.einsum("igh,ih->ig", slopes, log_prices - nominal)
                return Plan(np.clip(log_prices, low, high), loads + moved)
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
        log_prices, planned = self._run(values, time_limit)
        return Plan(np.clip(log_prices, low, high), planned)

    def _run(self, values: dict[cp.Parameter, np.ndarray], time_limit: float) -> tuple[np.ndarray, np.ndarray]:
        try:
            status, (u, y) = self._sent(values, time_limit)
        except Exception as error:  # a solver is foreign code: whatever it raises, the caller gets one type
            raise SolverFailedError(f"{self.solver} raised: {error}; try another of {SOLVERS}") from error
        if status == compiled_qp.INFEASIBLE:
            raise InfeasibleError("no prices fit; widen the rate limit or the price bounds")
        if status == compiled_qp.TIME_LIMIT:
            raise TimeLimitError(f"{self.solver} ran longer than {time_limit:.3g} s; raise the deadline")
        if status not in (compiled_qp.OPTIMAL, compiled_qp.INACCURATE):
            raise SolverFailedError(f"{self.solver} stopped without a solution; try another of {SOLVERS}")
        if not np.all(np.isfinite(u)):
            raise SolverFailedError(f"{self.solver} returned values that are not finite; try another of {SOLVERS}")
        return u, y

    def _sent(self, values: dict[cp.Parameter, np.ndarray], time_limit: float) -> tuple[str, list[Any]]:
        """Status, and the values of u and y."""
        if self.program is not None:
            return self.program.solve(values, time_limit)
        for parameter, value in values.items():
            parameter.value = value
        limit = {"time_limit": float(min(time_limit, 1e6))}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an inaccurate solution is judged by its status
            self.problem.solve(solver=self.solver, warm_start=True, **limit)
        status = {
            cp.OPTIMAL: compiled_qp.OPTIMAL,
            cp.OPTIMAL_INACCURATE: compiled_qp.INACCURATE,
            cp.INFEASIBLE: compiled_qp.INFEASIBLE,
            cp.INFEASIBLE_INACCURATE: compiled_qp.INFEASIBLE,
            cp.USER_LIMIT: compiled_qp.TIME_LIMIT,
        }.get(self.problem.status, compiled_qp.FAILED)
        found = [self._u.value, self._y.value]
        return (compiled_qp.FAILED if any(x is None for x in found) else status), found
