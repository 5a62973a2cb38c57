"""Sequential convex programming for Eq. 17 (arXiv 2512.24325): linearise the loads, solve the program, repeat.

A descent ends in the valley in which it began. So the planner also descends from other valleys
(:mod:`mpc.planning.load_valleys`), and returns the best plan.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from mpc.planning.deadline import Deadline, DeadlineError
from mpc.planning.load_qp import LoadQP, TimeLimitError
from mpc.planning.load_valleys import JUST_BELOW, SampledStarts, best_load_sequence, reachable_loads
from mpc.planning.objective import Objective, PlanStart
from mpc.planning.planning_method import PlannerSettings, PlanResult, nominal_sequence
from mpc.planning.predicted_loads import LinearisedLoads, PredictedLoads

STEP_FRACTIONS = (1.0, 0.5, 0.2, 0.05)
"""Fractions of a step that are tried in turn. Evaluating the model takes a tenth of the time of a convex program."""
CLOSE = 1.003
"""A plan whose J is within this factor of the dynamic program's needs no other start."""
NEAR = 1.02
"""The same for a plan that damps the same minutes as the dynamic program, whose loads lie on a grid."""
ROUNDS = 2
"""Dynamic programs in a plan: the first is around the minimum without damping, each next one around the plan before."""
_COUNTS = 1e-3  # least α^i of a minute that decides which valley a plan is in
_WORTHWHILE = 1e-3  # least predicted decrease, as a share of the objective, for another iteration


class _Search:
    """The clock and the counts of one call of :meth:`SCPPlanner.plan`."""

    def __init__(self, start: PlanStart, deadline: Deadline) -> None:
        self.start, self.deadline = start, deadline
        self.solved = self.restarts = 0
        self.best_restart = np.inf  # J of the best restart
        self.first = np.inf  # J of the descent from the nominal sequence


class _Descent(NamedTuple):
    """The end of a descent."""

    plan: LinearisedLoads
    value: float
    """J by the objective of the descent."""
    reason: str
    """``tolerance``, ``iterations`` or ``deadline``."""


class SCPPlanner:
    """Sequential convex programming with a trust region, a line search on the true objective, and restarts.

    Args:
        n_clusters: G.
        settings: settings of the objective and of the search.
        top: (G,) greatest log prices.

    Attributes:
        problem: the quadratic program; it is compiled once.
        objective: the true objective, Eq. 17.
    """

    def __init__(self, n_clusters: int, settings: PlannerSettings, top: np.ndarray) -> None:
        self.settings, self.top = settings, np.broadcast_to(np.asarray(top, dtype=np.float64), (n_clusters,))
        self.problem = LoadQP(
            n_clusters, settings, rate_limit=settings.rate_limit, solver=settings.solver, direct=settings.direct
        )
        self.objective = self.problem.objective
        if settings.mode == "real_time":  # one program a minute ends too far from its aim to keep a small distance
            self.objective = Objective(dataclasses.replace(settings, load_error=0.0))
        self._undamped = Objective(dataclasses.replace(settings, damping="none"))
        self._sample = SampledStarts(self.problem.shape, self.top)

    def plan(
        self,
        predicted: PredictedLoads,
        start: PlanStart,
        nominal: np.ndarray | None = None,
        deadline: Deadline | None = None,
    ) -> PlanResult:
        """Return a minimum of Eq. 17, searched from ``nominal`` and from other valleys.

        The damping term makes Eq. 17 non-convex: from above the threshold it keeps the load there. So the minimum
        without damping is searched first. If it stays below the threshold, it is the minimum with damping as well.
        Otherwise the descent continues with damping from the better of this minimum and the nominal sequence, then
        from the valleys that :mod:`mpc.planning.load_valleys` proposes.

        Args:
            predicted: loads as a function of log prices.
            start: the state from which the plan starts, and its target.
            nominal: (N,G) log prices at which the search starts; ``None``: those in force.
            deadline: the clock that ends the search; ``None``: unlimited.

        Raises:
            SolverError: the program could not be solved.
            ModelError: the model's loads are not finite.
            DeadlineError: the time was over before the first program was solved.
        """
        search = _Search(start, deadline or Deadline())
        nominal = nominal_sequence(start, nominal, self.problem.shape, self.top, self.settings.rate_limit)
        first = predicted.linearise(nominal)
        if self.settings.mode == "real_time":
            best = self._single_program(first, predicted, search)
        elif self.settings.damping == "measured":
            best = self._descend(first, predicted, self.objective, search)
        else:
            best = self._damped_where_needed(first, predicted, search)
        value = self._value(self.objective, best.plan, start)
        return PlanResult(
            best.plan,
            value,
            search.solved,
            best.reason == "tolerance",
            best.reason,
            search.deadline.spent,
            search.restarts,
            search.best_restart / max(search.first, 1e-12) - 1 if search.restarts else float("nan"),
        )

    def _damped_where_needed(self, first: LinearisedLoads, predicted: PredictedLoads, search: _Search) -> _Descent:
        start, objective = search.start, self.objective
        undamped = self._descend(first, predicted, self._undamped, search)
        if not objective.damped(undamped.plan.loads, start.load).any():
            return undamped
        better = min((first, undamped.plan), key=lambda candidate: self._value(objective, candidate, start))
        best = self._descend(better, predicted, objective, search)
        return self._restart(best, undamped.plan, predicted, search) if self.settings.restarts else best

    # -- restarts ----------------------------------------------------------------------------------------------------
    def _restart(self, best: _Descent, around: LinearisedLoads, predicted: PredictedLoads, search: _Search) -> _Descent:
        """Return the best of a descent and of descents from other valleys, which end when one is good enough.

        Args:
            best: the descent from the nominal sequence.
            around: the plan around which the loads within reach are computed.
            predicted: loads as a function of log prices.
            search: clock and counts.
        """
        start, search.first = search.start, best.value
        for _ in range(ROUNDS):
            loads, bound = best_load_sequence(self.objective, start, *self._reach(around.log_prices, predicted, start))
            if self._is_good(best, loads, bound, start) or search.deadline.passed:
                return best
            tracking = _Search(start._replace(target=loads), search.deadline)
            tracking.solved = search.solved
            around = self._descend(around, predicted, self._undamped, tracking).plan
            search.solved = tracking.solved
            best = self._better(best, around, predicted, search)
        if self._is_good(best, loads, bound, start) or self.settings.rate_limit is not None:
            return best
        for sequence in self._sample.best(
            self.objective, predicted, start, best.plan.log_prices, self.settings.restarts
        ):
            if search.deadline.passed:
                break
            best = self._better(best, predicted.linearise(sequence), predicted, search)
        return best

    def _better(self, best: _Descent, begin: LinearisedLoads, predicted: PredictedLoads, search: _Search) -> _Descent:
        """Return the better of a descent and of one that begins elsewhere."""
        other = self._descend(begin, predicted, self.objective, search)
        search.restarts += 1
        search.best_restart = min(search.best_restart, other.value)
        return other if other.value < best.value else best

    def _is_good(self, descent: _Descent, loads: np.ndarray, bound: float, start: PlanStart) -> bool:
        """Return whether a descent is as good as the dynamic program, or damps the same minutes, so it is its valley.

        Args:
            descent: the end of the descent.
            loads: (N,G) of the dynamic program.
            bound: J of these loads.
            start: the state from which the plan starts.
        """
        if descent.value <= CLOSE * bound + self.settings.tolerance:
            return True
        if descent.value > NEAR * bound + self.settings.tolerance:
            return False
        ours, others = (self.objective.damped(x, start.load) for x in (descent.plan.loads, loads))
        return bool((ours == others)[self.objective.weights >= _COUNTS].all())

    def _reach(self, nominal: np.ndarray, predicted: PredictedLoads, start: PlanStart) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and greatest loads (N,G) within the bounds of the prices and the rate limit."""
        limit, n = self.settings.rate_limit, len(nominal)
        low, high = np.zeros(nominal.shape), np.broadcast_to(self.top, nominal.shape)
        if limit is not None:
            moves = limit * np.arange(1, n + 1)[:, None]
            low, high = np.maximum(low, start.in_force - moves), np.minimum(high, start.in_force + moves)
        return reachable_loads(predicted, nominal, low, high)

    # -- one descent -------------------------------------------------------------------------------------------------
    def _single_program(self, first: LinearisedLoads, predicted: PredictedLoads, search: _Search) -> _Descent:
        """Solve one convex program and shorten its step until the true objective falls; else return ``first``.

        If the target lies below the threshold of predicted damping, the program has no damping term. With damping
        assumed from a nominal sequence above the threshold, it would keep the load there. A step that does not reach
        the threshold from far above is then accepted where it brings the load nearer to the target.
        """
        start, is_below = search.start, np.all(np.asarray(search.start.target) < self.settings.threshold)
        is_undamped = bool(is_below) and self.settings.damping == "predicted"
        objective = self._undamped if is_undamped else self.objective
        log_prices, _ = self._solve(first, self.settings.trust_region, objective, search)
        step = log_prices - first.log_prices
        value = self._value(self.objective, first, start)
        plan, value, fraction = self._line_search(first, step, value, predicted, self.objective, start)
        if fraction == 0.0 and is_undamped:
            nearer = self._value(self._undamped, first, start)
            plan, _, _ = self._line_search(first, step, nearer, predicted, self._undamped, start)
            value = self._value(self.objective, plan, start)
        return _Descent(plan, value, "iterations")

    def _descend(
        self, current: LinearisedLoads, predicted: PredictedLoads, objective: Objective, search: _Search
    ) -> _Descent:
        """Repeat: linearise, solve, accept what lowers the objective.

        The trust region grows where the convex model predicted the decrease well and shrinks where it did not.
        """
        s, start = self.settings, search.start
        value, radius, reason = self._value(objective, current, start), s.trust_region, "iterations"
        for iteration in range(s.iterations):
            if search.deadline.passed and search.solved:
                reason = "deadline"
                break
            try:
                log_prices, predicted_decrease = self._solve(current, radius, objective, search)
            except (TimeLimitError, DeadlineError):
                if search.solved == 0:
                    raise
                reason = "deadline"
                break
            step = log_prices - current.log_prices
            current, new_value, fraction = self._line_search(current, step, value, predicted, objective, start)
            decrease, value = value - new_value, new_value
            least = max(s.tolerance, _WORTHWHILE * value)
            if predicted_decrease < least or fraction == 0.0 or (decrease < s.tolerance and iteration > 0):
                reason = "tolerance"
                break
            if fraction < 1.0 or decrease < 0.25 * predicted_decrease:
                radius = fraction * float(np.abs(step).max())
            elif decrease > 0.75 * predicted_decrease:
                radius *= 2.0
        return _Descent(current, value, reason)

    def _line_search(
        self,
        current: LinearisedLoads,
        step: np.ndarray,
        value: float,
        predicted: PredictedLoads,
        objective: Objective,
        start: PlanStart,
    ) -> tuple[LinearisedLoads, float, float]:
        """Return the sequence after the largest fraction of ``step`` that lowers J, its J, and the fraction or 0."""
        for fraction in STEP_FRACTIONS:
            trial = predicted.linearise(current.log_prices + fraction * step)
            trial_value = self._value(objective, trial, start)
            if trial_value < value:
                return trial, trial_value, fraction
        return current, value, 0.0

    def _solve(
        self, current: LinearisedLoads, radius: float, objective: Objective, search: _Search
    ) -> tuple[np.ndarray, float]:
        """Return the log prices (N,G) that minimise the convex model around ``current``, and its decrease of J.

        Minutes without damping aim just below the threshold at most, because the convex model does not see the jump.
        """
        u, start = current.log_prices, search.start
        if search.deadline.passed:
            raise DeadlineError("no time to plan: raise the deadline, or shorten the horizon")
        damped, target = objective.damped(current.loads, start.load), start.target
        if objective.settings.damping == "predicted":
            edge = objective.edge(start.load) * (1 - JUST_BELOW)
            target = np.where(damped, target, np.minimum(target, edge))
        solution = self.problem.solve(
            current.loads,
            current.slopes,
            u,
            start.load,
            low=np.maximum(u - radius, 0.0),
            high=np.minimum(u + radius, self.top),
            damped=damped,
            target=target,
            emphasis=start.emphasis,
            previous=start.in_force,
            time_limit=search.deadline.left,
        )
        search.solved += 1
        linear = current.loads + np.einsum("igh,ih->ig", current.slopes, solution.log_prices - u)
        loads = np.stack([current.loads, linear])
        values = objective.with_damping(loads, start.load, damped, target, start.emphasis)
        return solution.log_prices, float(values[0] - values[1])

    @staticmethod
    def _value(objective: Objective, sequence: LinearisedLoads, start: PlanStart) -> float:
        return float(objective(sequence.loads, start.load, start.target, start.emphasis))
