"""Sequential convex programming."""

from __future__ import annotations

import numpy as np
import pytest

from mpc.planning.alternatives.registry import make_planning_method
from mpc.planning.deadline import Deadline
from mpc.planning.objective import PlanStart
from mpc.planning.planning_method import PlannerSettings
from mpc.planning.predicted_loads import LinearisedLoads
from mpc.planning.scp import SCPPlanner

TOP = np.array([5.0, 5.0])


def make_method(name, settings=None, **options):
    return make_planning_method(name, 2, settings or PlannerSettings(horizon=6), TOP, **options)


@pytest.mark.parametrize("damping", ["predicted", "measured", "none"])
def test_scp_is_within_one_per_cent_of_many_quasi_newton_starts(problems, damping):
    settings = PlannerSettings(horizon=6, damping=damping)
    scp, best = make_method("scp", settings), make_method("lbfgsb", settings, starts=6)
    for predicted, start in problems:
        result, reference = scp.plan(predicted, start), best.plan(predicted, start)
        assert result.objective <= 1.01 * reference.objective + 2e-6
        assert result.converged


def test_a_deadline_during_the_search_returns_the_best_plan_so_far(problems):
    predicted, start = problems[1]
    planner = make_method("scp", PlannerSettings(horizon=6, trust_region=0.02, iterations=50))
    clock, solve = Deadline(60.0), planner.problem.solve

    def solve_until_the_deadline(*arguments, **options):
        solution = solve(*arguments, **options)
        clock.end = clock.start
        return solution

    planner.problem.solve = solve_until_the_deadline
    result = planner.plan(predicted, start, deadline=clock)
    assert (result.reason, result.converged, result.iterations) == ("deadline", False, 1)
    first = predicted.linearise(np.broadcast_to(start.in_force, (6, 2)))
    assert result.objective < float(planner.objective(first.loads, start.load, start.target))


def test_real_time_mode_solves_one_program_a_minute_and_converges_over_minutes(problems):
    settings = PlannerSettings(horizon=6, mode="real_time")
    planner, full = make_method("scp", settings), make_method("scp")
    for predicted, start in problems:
        result, nominal = planner.plan(predicted, start), None
        assert result.iterations == 1
        for _ in range(6):
            nominal = result.plan.log_prices
            better = planner.plan(predicted, start, nominal)
            assert better.objective <= result.objective + 1e-12
            result = better
        assert result.objective <= 1.02 * full.plan(predicted, start).objective + 1e-5


def test_the_line_search_shortens_a_step_that_would_overshoot():
    """Plan for loads that fall steeply and flatten, where a full step would be worse than none."""

    class SteepLoads:
        shape = (1, 1)

        def linearise(self, u):
            loads = 0.2 + 4.0 * np.exp(-3.0 * u)
            return LinearisedLoads(u, loads, -12.0 * np.exp(-3.0 * u)[..., None])

    settings = PlannerSettings(horizon=1, trust_region=3.0, damping="none", iterations=30)
    planner = SCPPlanner(1, settings, np.array([9.0]))
    start = PlanStart(np.array([1.5]), np.array([0.3]), np.array([1.0]))
    result = planner.plan(SteepLoads(), start)
    assert result.converged
    assert result.plan.loads.item() == pytest.approx(1.0, abs=2e-3)
