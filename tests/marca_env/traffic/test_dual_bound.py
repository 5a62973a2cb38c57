"""The dual bound against the linear relaxation and every allocation of small problems."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from marca_env.traffic.allocation import allocate
from marca_env.traffic.dual_bound import dual_bound
from marca_env.utils.errors import InputError


def relaxation(values, costs, counts, budgets):
    """Return the value of the linear relaxation of Eq. 2–5; None if nothing is feasible."""
    n, n_joint = values.shape
    used = (counts[:, None, None] * costs).reshape(n * n_joint, -1).T
    one_each = np.kron(np.eye(n), np.ones(n_joint))
    result = linprog(-(counts[:, None] * values).ravel(), used, budgets, one_each, np.ones(n), method="highs")
    return -result.fun if result.success else None


@st.composite
def problems(draw):
    n, n_joint, n_clusters = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values, costs = rng.random((n, n_joint)), rng.random((n, n_joint, n_clusters))
    counts = rng.integers(0, 4, n).astype(float)
    budgets = rng.random(n_clusters) * max(1.0, counts.sum())
    return values, costs, counts, budgets


@given(problems())
@settings(max_examples=80, deadline=None)
def test_dual_bound_is_the_relaxation_and_bounds_every_allocation(problem):
    values, costs, counts, budgets = problem
    exact = relaxation(values, costs, counts, budgets)
    if exact is None:
        with pytest.raises(InputError, match="cannot be met"):
            dual_bound(values, costs, counts, budgets)
        return
    bound, prices = dual_bound(values, costs, counts, budgets)
    assert bound == pytest.approx(exact, rel=1e-6, abs=1e-9)
    assert np.all(prices >= 0)
    rows = np.arange(len(values))
    for joint in itertools.product(range(values.shape[1]), repeat=len(values)):
        if np.all(counts @ costs[rows, joint] <= budgets):
            assert counts @ values[rows, joint] <= bound * (1 + 1e-6) + 1e-9


def test_with_budget_to_spare_the_bound_is_the_best_of_all_at_price_zero():
    rng = np.random.default_rng(0)
    values, costs, counts = rng.random((50, 20)), rng.random((50, 20, 2)), np.ones(50)
    bound, prices = dual_bound(values, costs, counts, np.array([1e3, 1e3]))
    assert bound == pytest.approx(values.max(axis=1).sum())
    np.testing.assert_array_equal(prices, 0.0)


def test_the_prices_of_the_bound_nearly_use_up_the_budget():
    """With many small requests rounding hardly matters: the serving rule at those prices earns the bound."""
    rng = np.random.default_rng(1)
    costs = rng.gamma(2.0, 0.01, (2000, 30, 2)).astype(np.float32)
    values = np.sqrt(costs[..., 0] + 2 * costs[..., 1]) * rng.random((2000, 1), dtype=np.float32)
    budgets = np.array([25.0, 20.0])
    bound, prices = dual_bound(values, costs, np.ones(2000), budgets)
    rows, chosen = np.arange(2000), allocate(values, costs, prices)
    np.testing.assert_allclose(costs[rows, chosen].sum(axis=0), budgets, rtol=0.02)
    assert values[rows, chosen].sum() == pytest.approx(bound, rel=0.005)


@pytest.mark.parametrize(
    ("counts", "budgets", "message"),
    [
        ([1.0], [1.0], "counts"),
        ([1.0, -1.0], [1.0], "counts"),
        ([1.0, 1.0], [-1.0], "budgets"),
        ([1.0, 1.0], [], "fit"),
    ],
)
def test_inconsistent_problems_are_refused(counts, budgets, message):
    with pytest.raises(InputError, match=message):
        dual_bound(np.ones((2, 3)), np.ones((2, 3, 1)), np.array(counts), np.array(budgets))
