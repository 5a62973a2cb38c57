"""Sequential convex programming for Eq. 17 (arXiv 2512.24325): linearise the loads, solve the program, repeat."""

from __future__ import annotations

import dataclasses

import numpy as np

from mpc.planning.deadline import Deadline, DeadlineError
from mpc.planning.load_qp import LoadQP, TimeLimitError
from mpc.planning.objective import Objective, PlanStart
from mpc.planning.planning_method import PlannerSettings, PlanResult, nominal_sequence
from mpc.planning.predicted_loads import LinearisedLoads, PredictedLoads

STEP_FRACTIONS = (1.0, 0.5, 0.2, 0.05)
"""Fractions of a step that are tried in turn. Evaluating the model takes a tenth of the time of a convex program."""
_WORTHWHILE = 1e-3  # least predicted decrease, as a share of the objective, for another iteration


class _Search:
    """The state of one call of :meth:`SCPPlanner.plan`."""

    def __init__(self, start: PlanStart, deadline: Deadline) -> None:
        self.start, self.deadline = start, deadline
        self.solved, self.converged, self.reason = 0, False, "iterations"


class SCPPlanner:
    """Sequential convex programming with a trust region and a line search on the true objective.

    Args:
        n_clusters: G.
        settings: settings of the objective and of the search.
        top: (G,) greatest log prices.

    Attributes:
        problem: the quadratic program; it is compiled once.
        objective: the true objective, Eq. 17.
    """

    def __init__(self, n_clusters: int, settings: PlannerSettings, top: np.ndarray) -> None:
        self.settings, self.top = settings, top
        self.problem = LoadQP(
            n_clusters, settings, rate_limit=settings.rate_limit, solver=settings.solver, direct=settings.direct
        )
        self.objective = self.problem.objective
        self._undamped = Objective(dataclasses.replace(settings, damping="none"))

    def plan(
        self,
        predicted: PredictedLoads,
        start: PlanStart,
        nominal: np.ndarray | None = None,
        deadline: Deadline | None = None,
    ) -> PlanResult:
        """Return a minimum of Eq. 17, searched from ``nominal``.

        The damping term makes Eq. 17 non-convex: from above the threshold it keeps the load there. So the minimum
        without damping is searched first. If it stays below the threshold, it is the minimum with damping as well.
        Otherwise the descent continues with damping from the better of this minimum and the nominal sequence.

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
            plan = self._single_program(first, predicted, search)
        elif self.settings.damping == "measured":
            plan = self._descend(first, predicted, self.objective, search)
        else:
            plan = self._damped_where_needed(first, predicted, search)
        value = self._value(self.objective, plan, start)
        return PlanResult(plan, value, search.solved, search.converged, search.reason, search.deadline.spent)

    def _damped_where_needed(
        self, first: LinearisedLoads, predicted: PredictedLoads, search: _Search
    ) -> LinearisedLoads:
        undamped = self._descend(first, predicted, self._undamped, search)
        if not self.objective.damped(undamped.loads, search.start.load).any():
            return undamped
        # There are three local minima: near the present load, at the target, and just below the threshold, where
        # nothing is damped. The descent starts from the best of one candidate for each.
        start, below = search.start, self.settings.threshold * (1 - 1e-3)
        lower = _Search(start._replace(target=np.minimum(start.target, below)), search.deadline)
        candidates = [first, undamped, self._descend(undamped, predicted, self._undamped, lower)]
        search.solved += lower.solved
        best = min(candidates, key=lambda candidate: self._value(self.objective, candidate, start))
        return self._descend(best, predicted, self.objective, search)

    def _single_program(self, first: LinearisedLoads, predicted: PredictedLoads, search: _Search) -> LinearisedLoads:
        """Solve one convex program and shorten its step until the true objective falls; else return ``first``.

        If the target lies below the threshold of predicted damping, the program has no damping term. With damping
        assumed from a nominal sequence above the threshold, it would keep the load there.
        """
        is_below = np.all(np.asarray(search.start.target) < self.settings.threshold)
        objective = self._undamped if is_below and self.settings.damping == "predicted" else self.objective
        log_prices, _ = self._solve(first, self.settings.trust_region, objective, search)
        value = self._value(self.objective, first, search.start)
        return self._line_search(first, log_prices - first.log_prices, value, predicted, self.objective, search.start)[
            0
        ]

    def _descend(
        self, current: LinearisedLoads, predicted: PredictedLoads, objective: Objective, search: _Search
    ) -> LinearisedLoads:
        """Repeat: linearise, solve, accept what lowers the objective.

        The trust region grows where the convex model predicted the decrease well and shrinks where it did not.
        """
        s, start = self.settings, search.start
        value, radius = self._value(objective, current, start), s.trust_region
        search.converged, search.reason = False, "iterations"
        for iteration in range(s.iterations):
            if search.deadline.passed and search.solved:
                search.reason = "deadline"
                break
            try:
                log_prices, predicted_decrease = self._solve(current, radius, objective, search)
            except TimeLimitError:
                if search.solved == 0:
                    raise
                search.reason = "deadline"
                break
            step = log_prices - current.log_prices
            current, new_value, fraction = self._line_search(current, step, value, predicted, objective, start)
            decrease, value = value - new_value, new_value
            least = max(s.tolerance, _WORTHWHILE * value)
            if predicted_decrease < least or fraction == 0.0 or (decrease < s.tolerance and iteration > 0):
                search.converged, search.reason = True, "tolerance"
                break
            if fraction < 1.0 or decrease < 0.25 * predicted_decrease:
                radius = fraction * float(np.abs(step).max())
            elif decrease > 0.75 * predicted_decrease:
                radius *= 2.0
        return current

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
        """Return the log prices (N,G) that minimise the convex model around ``current``, and its decrease of J."""
        u, start = current.log_prices, search.start
        if search.deadline.passed:
            raise DeadlineError("no time to plan: raise the deadline, or shorten the horizon")
        damped = objective.damped(current.loads, start.load)
        solution = self.problem.solve(
            current.loads,
            current.slopes,
            u,
            start.load,
            low=np.maximum(u - radius, 0.0),
            high=np.minimum(u + radius, self.top),
            damped=damped,
            target=start.target,
            emphasis=start.emphasis,
            previous=start.in_force,
            time_limit=search.deadline.left,
        )
        search.solved += 1
        linear = current.loads + np.einsum("igh,ih->ig", current.slopes, solution.log_prices - u)
        loads = np.stack([current.loads, linear])
        values = objective.with_damping(loads, start.load, damped, start.target, start.emphasis)
        return solution.log_prices, float(values[0] - values[1])

    @staticmethod
    def _value(objective: Objective, sequence: LinearisedLoads, start: PlanStart) -> float:
        return float(objective(sequence.loads, start.load, start.target, start.emphasis))
