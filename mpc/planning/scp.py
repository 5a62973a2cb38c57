"""Sequential convex programming for Eq. 17 (arXiv 2512.24325): linearise the loads, solve the program, repeat."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from marca_env.utils.errors import InputError, unknown_option
from mpc.planning.deadline import Deadline, DeadlineError
from mpc.planning.load_qp import LoadProblem, TimeLimitError
from mpc.planning.objective import Now, Objective, ObjectiveSettings
from mpc.planning.predicted_loads import ModelError, Point, PredictedLoads

__all__ = ["ModelError", "Now", "PlanResult", "Planner", "PlannerSettings", "PlanningMethod", "Point", "PredictedLoads"]
MODES = ("converged", "real_time")
SHARES = (1.0, 0.5, 0.2, 0.05)
"""Shares of a step that are tried in turn; evaluating the model costs a tenth of a convex program."""
_WORTHWHILE = 1e-3  # of the objective: what the convex model must still promise for another iteration


@dataclass(frozen=True)
class PlannerSettings(ObjectiveSettings):
    """Eq. 17 and how it is solved."""

    trust_region: float = 1.0
    """Largest move of a log price between two linearisations, to begin with."""
    iterations: int = 12
    """Most convex programs a minute."""
    tolerance: float = 1e-6
    """Stop once the objective (in budgets squared) falls by less than this."""
    mode: Literal["converged", "real_time"] = "converged"
    """``converged``: iterate until the objective stops falling; ``real_time``: one convex program a minute, the
    iterations being spread over the minutes."""
    rate_limit: float | None = None
    """Largest change of a log price from one minute to the next; ``None``: free."""
    solver: str = "CLARABEL"
    """"CLARABEL" or "OSQP"."""
    direct: bool = True
    """Solve a convex program by linear systems where its active set is soon found, which is several times quicker, and
    ask the solver for the others only; see :mod:`mpc.planning.active_set`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("trust_region", "tolerance", "iterations"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.mode not in MODES:
            raise InputError(unknown_option("mode", self.mode, MODES))


class PlanResult(NamedTuple):
    """A plan and how it was found."""

    point: Point
    objective: float
    """J of the plan (Eq. 17), budgets squared."""
    iterations: int
    """Convex programs solved, or rounds of another search."""
    converged: bool
    """Whether the method's own test says that no better plan is near."""
    reason: str
    """Why it ended: ``tolerance``, ``iterations`` or ``deadline``."""
    seconds: float
    """Time that it took."""


class PlanningMethod(Protocol):
    """Finds the price sequence that minimises Eq. 17: this module's, or one of :mod:`mpc.planning.alternatives.by_name`."""

    objective: Objective

    def plan(
        self,
        predicted: PredictedLoads,
        now: Now,
        nominal: np.ndarray | None = None,
        deadline: Deadline | None = None,
    ) -> PlanResult:
        """A plan, started from log prices ``nominal`` (N,G), or from those in force."""
        ...


def start_point(
    now: Now, nominal: np.ndarray | None, shape: tuple[int, int], top: np.ndarray, limit: float | None
) -> np.ndarray:
    """The nominal sequence (N,G) within the bounds; the price in force where there is none or the rate forbids it."""
    if nominal is None or (limit is not None and np.any(np.abs(nominal[0] - now.in_force) > limit)):
        nominal = np.broadcast_to(now.in_force, shape)
    return np.clip(nominal, 0.0, top)


class _Search:
    """The state of one call of :meth:`Planner.plan`."""

    def __init__(self, now: Now, deadline: Deadline) -> None:
        self.now, self.deadline = now, deadline
        self.solved, self.converged, self.reason = 0, False, "iterations"


class Planner:
    """Sequential convex programming with a trust region and a merit test.

    Args:
        n_clusters: G.
        settings: the objective and the search.
        top: (G,) highest log prices.

    Attributes:
        problem: the compiled program; never rebuilt.
        objective: Eq. 17 as it is judged.
    """

    def __init__(self, n_clusters: int, settings: PlannerSettings, top: np.ndarray) -> None:
        self.settings, self.top = settings, top
        self.problem = LoadProblem(
            n_clusters, settings, rate_limit=settings.rate_limit, solver=settings.solver, direct=settings.direct
        )
        self.objective = self.problem.objective
        self._undamped = Objective(dataclasses.replace(settings, damping="none"))

    def plan(
        self,
        predicted: PredictedLoads,
        now: Now,
        nominal: np.ndarray | None = None,
        deadline: Deadline | None = None,
    ) -> PlanResult:
        """A minimum of Eq. 17, started from log prices ``nominal`` (N,G), or from those in force.

        The damping term makes Eq. 17 non-convex: from above the threshold it holds the load up there. So the minimum
        without it is sought first. Where that keeps below the threshold it is the minimum with the term as well;
        otherwise the descent goes on with the term, from there or from the nominal sequence, whichever is better.

        Raises:
            SolverError: the program could not be solved.
            ModelError: the model's loads are not finite.
            DeadlineError: the time was over before the first program was solved.
        """
        search = _Search(now, deadline or Deadline())
        nominal = start_point(now, nominal, self.problem.shape, self.top, self.settings.rate_limit)
        start = predicted.linearised(nominal)
        if self.settings.mode == "real_time":
            point = self._single(start, predicted, search)
        elif self.settings.damping == "measured":
            point = self._descend(start, predicted, self.objective, search)
        else:
            point = self._damped_where_needed(start, predicted, search)
        value = self._value(self.objective, point, now)
        return PlanResult(point, value, search.solved, search.converged, search.reason, search.deadline.spent)

    def _damped_where_needed(self, start: Point, predicted: PredictedLoads, search: _Search) -> Point:
        point = self._descend(start, predicted, self._undamped, search)
        if not self.objective.damped(point.loads, search.now.load).any():
            return point
        # Three valleys: up where the load is, on the target, and just below the threshold, where nothing is damped.
        now, below = search.now, self.settings.threshold * (1 - 1e-3)
        lower = _Search(now._replace(target=np.minimum(now.target, below)), search.deadline)
        candidates = [start, point, self._descend(point, predicted, self._undamped, lower)]
        search.solved += lower.solved
        best = min(candidates, key=lambda candidate: self._value(self.objective, candidate, now))
        return self._descend(best, predicted, self.objective, search)

    def _single(self, start: Point, predicted: PredictedLoads, search: _Search) -> Point:
        """One convex program; its step is cut until the true objective falls, else the start stays.

        Where the target lies below the threshold of predicted damping, the program is the one without it: the damped
        one, assumed from a nominal sequence above the threshold, would hold the load there.
        """
        low = np.all(np.asarray(search.now.target) < self.settings.threshold) and self.settings.damping == "predicted"
        objective = self._undamped if low else self.objective
        solution, _ = self._solve(start, self.settings.trust_region, objective, search)
        before = self._value(self.objective, start, search.now)
        return self._merit(start, solution - start.log_prices, before, predicted, self.objective, search.now)[0]

    def _descend(self, point: Point, predicted: PredictedLoads, objective: Objective, search: _Search) -> Point:
        """Linearise, solve, accept what lowers the objective; the trust region follows how well it was foretold."""
        s, now = self.settings, search.now
        value, radius = self._value(objective, point, now), s.trust_region
        search.converged, search.reason = False, "iterations"
        for iteration in range(s.iterations):
            if search.deadline.passed and search.solved:
                search.reason = "deadline"
                break
            try:
                log_prices, promised = self._solve(point, radius, objective, search)
            except TimeLimitError:
                if search.solved == 0:
                    raise
                search.reason = "deadline"
                break
            step = log_prices - point.log_prices
            point, reached, share = self._merit(point, step, value, predicted, objective, now)
            gain, value = value - reached, reached
            enough = max(s.tolerance, _WORTHWHILE * value)
            if promised < enough or share == 0.0 or (gain < s.tolerance and iteration > 0):
                search.converged, search.reason = True, "tolerance"
                break
            if share < 1.0 or gain < 0.25 * promised:
                radius = share * float(np.abs(step).max())
            elif gain > 0.75 * promised:
                radius *= 2.0
        return point

    def _merit(
        self,
        point: Point,
        step: np.ndarray,
        value: float,
        predicted: PredictedLoads,
        objective: Objective,
        now: Now,
    ) -> tuple[Point, float, float]:
        """The point that the largest share of ``step`` lowers the true objective with, that, and the share or 0."""
        for share in SHARES:
            trial = predicted.linearised(point.log_prices + share * step)
            reached = self._value(objective, trial, now)
            if reached < value:
                return trial, reached, share
        return point, value, 0.0

    def _solve(self, point: Point, radius: float, objective: Objective, search: _Search) -> tuple[np.ndarray, float]:
        """Log prices (N,G) that minimise the convex model around ``point``, and the fall of J that it promises."""
        u, now = point.log_prices, search.now
        if search.deadline.passed:
            raise DeadlineError("no time to plan: raise the deadline, or shorten the horizon")
        damped = objective.damped(point.loads, now.load)
        solution = self.problem.solve(
            point.loads,
            point.slopes,
            u,
            now.load,
            low=np.maximum(u - radius, 0.0),
            high=np.minimum(u + radius, self.top),
            damped=damped,
            target=now.target,
            emphasis=now.emphasis,
            previous=now.in_force,
            time_limit=search.deadline.left,
        )
        search.solved += 1
        linear = point.loads + np.einsum("igh,ih->ig", point.slopes, solution.log_prices - u)
        values = objective.fixed(np.stack([point.loads, linear]), now.load, damped, now.target, now.emphasis)
        return solution.log_prices, float(values[0] - values[1])

    @staticmethod
    def _value(objective: Objective, point: Point, now: Now) -> float:
        return float(objective(point.loads, now.load, now.target, now.emphasis))
