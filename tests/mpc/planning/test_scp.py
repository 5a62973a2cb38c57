"""Sequential convex programming."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.experiments.balancing_solvers.generated_system import GeneratedSystem
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


@pytest.fixture(scope="module")
def far_problems():
    """Return eight planning problems of a generated system whose loads are about 30 % off the budget."""
    system = GeneratedSystem(2, seed=7)
    model, rng = system.fit(epochs=10), np.random.default_rng(0)
    states = [system.state(model, horizon=10, off=0.3, rng=rng) for _ in range(8)]
    return [(state.predicted, state.start) for state in states]


def test_real_time_mode_leaves_an_overload_although_the_target_is_within_the_allowed_error(far_problems):
    planner = make_method("scp", PlannerSettings(horizon=10, mode="real_time", load_error=0.004))
    overloaded = 0
    for predicted, start in far_problems:
        nominal = None
        for _ in range(8):
            nominal = planner.plan(predicted, start, nominal).plan.log_prices
        loads = predicted.loads(nominal)[0]
        high = start.load > 1.05
        overloaded += high.sum()
        assert np.all(loads[high] < 1.0)
    assert overloaded >= 2


@pytest.mark.slow
@pytest.mark.parametrize("load_error", [0.0, 0.004])
def test_restarts_find_the_valley_below_the_threshold(far_problems, load_error):
    options = {"horizon": 10, "threshold": 44 / 46, "load_error": load_error}
    planner = make_method("scp", PlannerSettings(**options))
    without = make_method("scp", PlannerSettings(**options, restarts=0))
    best = make_method("lbfgsb", PlannerSettings(**options), starts=4)
    large = make_method("cem", PlannerSettings(**options), samples=150, rounds=25, spread=0.5)
    improved = 0
    for predicted, start in far_problems:
        result, first = planner.plan(predicted, start), without.plan(predicted, start)
        references = (first, best.plan(predicted, start), large.plan(predicted, start))
        assert result.objective <= 1.01 * min(r.objective for r in references) + 1e-6
        assert (first.restarts, np.isnan(first.restart_gap)) == (0, True)
        assert (result.restarts == 0) == np.isnan(result.restart_gap)
        if result.restart_gap < 0:
            improved += 1
            assert result.objective == pytest.approx(first.objective * (1 + result.restart_gap), rel=1e-6)
        elif result.restarts:
            assert result.objective == pytest.approx(first.objective)
    assert improved >= 4


def test_a_plan_stays_below_the_threshold_by_more_than_the_error_it_allows(far_problems):
    settings = PlannerSettings(horizon=10, threshold=44 / 46, load_error=0.005)
    planner, bare = make_method("scp", settings), make_method("scp", PlannerSettings(horizon=10, threshold=44 / 46))
    checked = 0
    for predicted, start in far_problems:
        below = planner.plan(predicted, start).plan.loads[0]
        far = np.abs(start.load - 44 / 46) > 0.1
        checked += far.sum()
        assert np.all(below[far] < 44 / 46 - 0.01)
        on_the_edge = bare.plan(predicted, start).plan.loads[0][far]
        assert on_the_edge == pytest.approx(np.full(far.sum(), 44 / 46), abs=1e-3)
    assert checked >= 4


def test_plans_do_not_depend_on_the_plans_before(far_problems):
    settings = PlannerSettings(horizon=10, threshold=44 / 46, load_error=0.004)
    used, fresh = make_method("scp", settings), make_method("scp", settings)
    for predicted, start in far_problems:
        used.plan(predicted, start)
    predicted, start = far_problems[0]
    assert used.plan(predicted, start).plan.log_prices.tolist() == fresh.plan(predicted, start).plan.log_prices.tolist()


def test_a_rate_limit_holds_in_the_other_valleys(far_problems):
    settings = PlannerSettings(horizon=10, threshold=44 / 46, rate_limit=0.1, load_error=0.004)
    planner = make_method("scp", settings)
    for predicted, start in far_problems:
        result = planner.plan(predicted, start)
        prices = np.vstack([start.in_force, result.plan.log_prices])
        assert np.abs(np.diff(prices, axis=0)).max() <= 0.1 + 1e-3
