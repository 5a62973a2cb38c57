from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize

from marca_env.errors import InputError
from mpc.problem import InfeasibleError, LoadProblem, Objective, ObjectiveSettings, SolverFailedError


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


@pytest.mark.parametrize("solver", ["CLARABEL", "OSQP"])
def test_one_step_by_hand(solver):
    problem = LoadProblem(1, one_step(), solver=solver)
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


def test_margin_and_objective_by_hand():
    assert solve(LoadProblem(1, one_step(margin=0.1)), [1.2], [-0.5], [1.0], 1.2).loads.item() == pytest.approx(0.9)
    objective = Objective(ObjectiveSettings(horizon=2, alpha=0.5, beta=8.0))
    loads = np.array([[1.1], [0.9]])
    # (0.1² + 8 · 0.2²) + 0.5 · 0.1²: the second minute is below the budget, so it is not damped
    assert objective(loads, np.array([1.3])) == pytest.approx(0.01 + 8 * 0.04 + 0.5 * 0.01)


def test_readings_of_the_damping_term():
    loads, last = np.array([[1.2], [0.97], [0.8]]), np.array([1.1])

    def where(**changes):
        return Objective(ObjectiveSettings(horizon=3, **changes)).damped(loads, last).ravel().tolist()

    assert where() == [True, False, False]
    assert where(threshold=44 / 46) == [True, True, False]
    assert where(damping="measured") == [True, True, True]
    assert where(damping="measured", threshold=1.2) == [False, False, False]
    assert where(damping="none") == [False, False, False]


def test_objective_takes_batches():
    objective, rng = Objective(), np.random.default_rng(0)
    loads, last = rng.uniform(0.5, 1.5, (4, 3, 10, 2)), np.array([1.0, 0.9])
    values = objective(loads, last)
    assert values.shape == (4, 3)
    assert values[2, 1] == pytest.approx(float(objective(loads[2, 1], last)))


@pytest.mark.parametrize("solver", ["CLARABEL", "OSQP"])
@pytest.mark.parametrize("rate_limit", [None, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_matches_a_general_solver(seed, rate_limit, solver):
    rng = np.random.default_rng(seed)
    settings = ObjectiveSettings(horizon=4, alpha=0.6, beta=3.0, margin=0.02, proximity=1e-3)
    problem = LoadProblem(2, settings, rate_limit=rate_limit, solver=solver)
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


def test_is_dpp_and_compiled_once(monkeypatch):
    problem = LoadProblem(2, ObjectiveSettings(horizon=5), rate_limit=1.0)
    assert problem.problem.is_dcp(dpp=True)
    built = problem.problem
    compiled, rng = [], np.random.default_rng(0)
    for _ in range(4):
        loads = rng.uniform(0.8, 1.2, (5, 2))
        solve(problem, loads, -np.ones((5, 2, 2)), np.ones((5, 2)), [1.0, 1.0], previous=np.ones(2))
        compiled.append(built._cache.param_prog)
    assert problem.problem is built
    assert compiled[0] is not None
    assert all(x is compiled[0] for x in compiled)


def test_failures_are_typed(monkeypatch):
    problem = LoadProblem(1, one_step(), rate_limit=0.1)
    with pytest.raises(InfeasibleError, match="widen the rate limit"):
        solve(problem, [1.0], [-0.5], [1.0], 1.0, low=5.0, previous=np.zeros(1))

    def broken(**_):
        raise cp.error.SolverError("out of luck")

    monkeypatch.setattr(problem.problem, "solve", broken)
    with pytest.raises(SolverFailedError, match="out of luck"):
        solve(problem, [1.0], [-0.5], [1.0], 1.0, previous=np.ones(1))


def test_a_rate_limit_needs_the_previous_prices():
    with pytest.raises(InputError, match="previous"):
        solve(LoadProblem(1, one_step(), rate_limit=0.1), [1.0], [-0.5], [1.0], 1.0)


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
        lambda: LoadProblem(1, solver="GUROBI"),
        lambda: LoadProblem(1, rate_limit=0.0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InputError):
        make()
