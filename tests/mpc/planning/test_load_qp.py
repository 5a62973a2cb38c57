"""The quadratic program of Eq. 17, by the active-set method and by solvers."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize

from marca_env.utils.errors import InputError
from mpc.planning.active_set import minimise_in_box
from mpc.planning.load_qp import InfeasibleError, LoadQP, SolverFailedError, TimeLimitError
from mpc.planning.objective import Objective, ObjectiveSettings


def solve(problem, loads, slopes, nominal, last, *, low=0.0, high=10.0, damped=False, previous=None):
    shape = problem.shape
    return problem.solve(
        np.asarray(loads, dtype=float).reshape(shape),
        np.asarray(slopes, dtype=float).reshape(*shape, shape[1]),
        np.asarray(nominal, dtype=float).reshape(shape),
        np.atleast_1d(np.asarray(last, dtype=float)),
        low=np.full(shape, low),
        high=np.full(shape, high),
        damped=np.full(shape, damped),
        previous=previous,
    )


def one_step(**changes) -> ObjectiveSettings:
    return ObjectiveSettings(**{"horizon": 1, "beta": 8.0, "proximity": 0.0, **changes})


SOLVERS = [{"solver": "CLARABEL", "direct": False}, {"solver": "OSQP", "direct": False}, {"direct": True}]


@pytest.mark.parametrize("options", SOLVERS)
def test_one_minute_matches_a_hand_computed_case(options):
    problem = LoadQP(1, one_step(), **options)
    # y = 1.2 − 0.5 (u − 1) meets the budget at u = 1.4
    plan = solve(problem, [1.2], [-0.5], [1.0], 1.2)
    assert plan.log_prices.item() == pytest.approx(1.4, abs=1e-4)
    assert plan.loads.item() == pytest.approx(1.0, abs=1e-4)
    # damped: (y − 1)² + 8 (y − 1.2)² is least at y = (1 + 8 · 1.2)/9
    plan = solve(problem, [1.2], [-0.5], [1.0], 1.2, damped=True)
    assert plan.loads.item() == pytest.approx(10.6 / 9, abs=1e-4)
    # the bound holds
    assert solve(problem, [1.2], [-0.5], [1.0], 1.2, high=1.1).log_prices.item() == pytest.approx(1.1)
    assert solve(problem, [0.5], [-0.5], [0.2], 0.5).log_prices.item() == pytest.approx(0.0, abs=1e-4)


def test_margin_and_objective_match_a_hand_computed_case():
    assert solve(LoadQP(1, one_step(margin=0.1)), [1.2], [-0.5], [1.0], 1.2).loads.item() == pytest.approx(0.9)
    objective = Objective(ObjectiveSettings(horizon=2, alpha=0.5, beta=8.0))
    loads = np.array([[1.1], [0.9]])
    # (0.1² + 8 · 0.2²) + 0.5 · 0.1²: the second minute is below the budget, so it is not damped
    assert objective(loads, np.array([1.3])) == pytest.approx(0.01 + 8 * 0.04 + 0.5 * 0.01)


@pytest.mark.parametrize("options", SOLVERS)
@pytest.mark.parametrize("rate_limit", [None, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_the_solution_matches_a_general_solver(seed, rate_limit, options):
    rng = np.random.default_rng(seed)
    settings = ObjectiveSettings(horizon=4, alpha=0.6, beta=3.0, margin=0.02, proximity=1e-3)
    problem = LoadQP(2, settings, rate_limit=rate_limit, **options)
    shape = problem.shape
    loads, nominal = rng.uniform(0.7, 1.5, shape), rng.uniform(0.5, 2.0, shape)
    slopes = -rng.uniform(0.1, 0.6, (*shape, 2)) * (np.eye(2) + 0.2)
    last, previous, damped = rng.uniform(0.9, 1.2, 2), nominal[0] + 0.1, rng.random(shape) > 0.5
    low, high = np.zeros(shape), np.full(shape, 3.0)
    weight = settings.alpha ** np.arange(4)[:, None]

    def cost(flat):
        u = flat.reshape(shape)
        y = loads + np.einsum("igh,ih->ig", slopes, u - nominal)
        steps = np.diff(np.vstack([last, y]), axis=0)
        tracking = weight * ((y - 0.98) ** 2 + 3.0 * damped * steps**2)
        return tracking.sum() + 1e-3 * ((u - nominal) ** 2).sum()

    def slack(flat):
        return (0.3 - np.abs(np.diff(np.vstack([previous, flat.reshape(shape)]), axis=0))).ravel()

    constraints = [] if rate_limit is None else [{"type": "ineq", "fun": slack}]
    bounds = list(zip(low.ravel(), high.ravel(), strict=True))
    reference = minimize(
        cost, nominal.ravel(), bounds=bounds, constraints=constraints, method="SLSQP", options={"ftol": 1e-12}
    )
    plan = problem.solve(loads, slopes, nominal, last, low=low, high=high, damped=damped, previous=previous)
    assert cost(plan.log_prices.ravel()) == pytest.approx(reference.fun, rel=2e-3, abs=1e-5)
    assert plan.log_prices.ravel() == pytest.approx(reference.x, abs=0.03)
    if rate_limit is not None:
        assert slack(plan.log_prices.ravel()).min() > -1e-3


def test_the_program_is_dpp_and_compiled_once(monkeypatch):
    problem = LoadQP(2, ObjectiveSettings(horizon=5), rate_limit=1.0)
    assert problem.problem.is_dcp(dpp=True)
    assert problem.compiled is not None
    monkeypatch.setattr(cp.Problem, "get_problem_data", lambda *_, **__: pytest.fail("compiled again"))
    rng = np.random.default_rng(0)
    for _ in range(4):
        loads = rng.uniform(0.8, 1.2, (5, 2))
        solve(problem, loads, -np.ones((5, 2, 2)), np.ones((5, 2)), [1.0, 1.0], previous=np.ones(2))


@pytest.mark.parametrize("solver", ["CLARABEL", "OSQP"])
@pytest.mark.parametrize("rate_limit", [None, 0.4])
def test_the_compiled_program_gives_the_solution_of_cvxpy(solver, rate_limit):
    rng = np.random.default_rng(4)
    compiled, uncompiled = (
        LoadQP(2, ObjectiveSettings(horizon=6), rate_limit=rate_limit, solver=solver, direct=False) for _ in "ab"
    )
    uncompiled.compiled = None  # as if this cvxpy compiled to an unknown form
    for _ in range(5):
        arguments = rng.uniform(0.7, 1.5, (6, 2)), -rng.uniform(0.1, 0.6, (6, 2, 2)), rng.uniform(0.5, 1.0, (6, 2))
        options = {"damped": rng.random((6, 2)) > 0.5, "previous": np.full(2, 0.7)}
        plans = [solve(p, *arguments, [1.1, 0.9], **options) for p in (compiled, uncompiled)]
        assert plans[0].log_prices == pytest.approx(plans[1].log_prices, abs=1e-5 if solver == "CLARABEL" else 2e-3)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("damped", ["nowhere", "somewhere", "everywhere"])
def test_the_active_set_method_finds_the_minimum_of_the_solver(size, damped, monkeypatch):
    rng = np.random.default_rng([size, len(damped)])
    settings = ObjectiveSettings(horizon=7, alpha=0.8, proximity=1e-3)
    direct, program = (LoadQP(size, settings, direct=d) for d in (True, False))
    monkeypatch.setattr(direct.compiled, "solve", lambda *_: pytest.fail("the active-set method declined"))
    at_bound = 0
    for _ in range(20):
        shape, coupling = direct.shape, np.eye(size) + 0.3 * rng.random((size, size))
        loads, slopes = rng.uniform(0.4, 1.6, shape), -rng.uniform(0.1, 0.8, (7, 1, 1)) * coupling
        nominal, width = rng.uniform(0.1, 2.0, shape), rng.uniform(0.1, 1.5)
        low, high = np.maximum(nominal - width, 0.0), nominal + width
        damped_minutes = {"nowhere": False, "somewhere": rng.random(shape) < 0.4, "everywhere": True}[damped]
        options = {
            "low": low,
            "high": high,
            "damped": np.broadcast_to(damped_minutes, shape),
            "target": rng.uniform(0.9, 1.0, size),
        }
        direct_solution, solver_solution = (
            p.solve(loads, slopes, nominal, rng.uniform(1, 1, size), **options) for p in (direct, program)
        )
        assert direct_solution.log_prices == pytest.approx(solver_solution.log_prices, abs=2e-4)
        assert direct_solution.loads == pytest.approx(solver_solution.loads, abs=1e-4)
        at_bound += int(((direct_solution.log_prices == low) | (direct_solution.log_prices == high)).sum())
    assert at_bound > 20  # the bounds matter


def test_the_solver_is_used_where_the_active_set_method_declines(monkeypatch):
    calls = []
    for n, options in ((1, {"rate_limit": 0.5}), (10, {})):
        problem = LoadQP(n, ObjectiveSettings(horizon=30), **options)
        solver = problem.compiled.solve
        monkeypatch.setattr(
            problem.compiled, "solve", lambda *a, solver=solver, **k: calls.append(1) or solver(*a, **k)
        )
        shape = problem.shape
        slopes = -0.5 * np.broadcast_to(np.eye(n), (*shape, n))
        solve(problem, np.full(shape, 1.2), slopes, np.ones(shape), np.ones(n), damped=True, previous=np.ones(n))
    assert len(calls) == 2
    assert minimise_in_box(np.zeros((1, 2, 2)), np.ones((1, 2)), np.zeros((1, 2)), np.ones((1, 2))) is None


def test_an_unknown_compiled_form_is_solved_by_cvxpy(monkeypatch, caplog):
    monkeypatch.setattr(cp.Problem, "get_problem_data", lambda *_, **__: ({}, None, None))
    problem = LoadQP(1, one_step())
    assert problem.compiled is None
    assert "more slowly" in caplog.text
    monkeypatch.undo()
    problem.active_set = None
    assert solve(problem, [1.2], [-0.5], [1.0], 1.2).log_prices.item() == pytest.approx(1.4, abs=1e-4)


def test_a_time_limit_raises_its_own_error():
    rng, shape = np.random.default_rng(0), (60, 10)
    problem = LoadQP(10, ObjectiveSettings(horizon=60))
    with pytest.raises(TimeLimitError, match="raise the deadline"):
        problem.solve(
            rng.uniform(0.7, 1.5, shape),
            -rng.uniform(0.1, 0.6, (*shape, 10)),
            np.ones(shape),
            np.ones(10),
            low=np.zeros(shape),
            high=np.full(shape, 3.0),
            damped=np.ones(shape, dtype=bool),
            time_limit=1e-5,
        )


def test_peak_slots_double_the_damping_and_may_pass_midnight():
    settings = ObjectiveSettings(horizon=4, peak_slots=((1438, 0), (600, 660)))
    assert settings.emphasis(np.array([1437, 1438, 1439, 0, 1, 630])).tolist() == [1, 2, 2, 2, 1, 2]
    objective = Objective(ObjectiveSettings(horizon=1, peak_slots=((0, 59),)))
    loads, last = np.array([[1.1]]), np.array([1.4])
    calm, peak = (float(objective(loads, last, emphasis=e)) for e in (1.0, np.array([2.0])))
    assert calm == pytest.approx(0.01 + 8 * 0.09)
    assert peak == pytest.approx(0.01 + 16 * 0.09)
    # in the convex program as well: (y − 1)² + 16 (y − 1.2)² is least at y = (1 + 16 · 1.2)/17
    problem = LoadQP(1, one_step())
    plan = problem.solve(
        np.array([[1.2]]),
        np.array([[[-0.5]]]),
        np.array([[1.0]]),
        np.array([1.2]),
        low=np.zeros((1, 1)),
        high=np.full((1, 1), 9.0),
        damped=np.ones((1, 1), dtype=bool),
        emphasis=np.array([2.0]),
    )
    assert plan.loads.item() == pytest.approx(20.2 / 17, abs=1e-4)
    for slots in (((5, 1440),), ((1,),)):
        with pytest.raises(InputError, match="peak_slots"):
            ObjectiveSettings(peak_slots=slots)


def test_failures_of_the_solver_have_their_own_errors(monkeypatch):
    problem = LoadQP(1, one_step(), rate_limit=0.1)
    with pytest.raises(InfeasibleError, match="widen the rate limit"):
        solve(problem, [1.0], [-0.5], [1.0], 1.0, low=5.0, previous=np.zeros(1))

    def broken(*_):
        raise cp.error.SolverError("out of luck")

    monkeypatch.setattr(problem.compiled, "solve", broken)
    with pytest.raises(SolverFailedError, match="out of luck"):
        solve(problem, [1.0], [-0.5], [1.0], 1.0, previous=np.ones(1))


def test_a_rate_limit_needs_the_previous_prices():
    with pytest.raises(InputError, match="previous"):
        solve(LoadQP(1, one_step(), rate_limit=0.1), [1.0], [-0.5], [1.0], 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ObjectiveSettings(horizon=0),
        lambda: ObjectiveSettings(horizon=2.5),
        lambda: ObjectiveSettings(alpha=0.0),
        lambda: ObjectiveSettings(beta=np.nan),
        lambda: ObjectiveSettings(damping="always"),
        lambda: ObjectiveSettings(margin=1.0),
        lambda: ObjectiveSettings(threshold=0.0),
        lambda: LoadQP(1, solver="GUROBI"),
        lambda: LoadQP(1, rate_limit=0.0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InputError):
        make()
