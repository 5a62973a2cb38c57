"""Allocation under quotas: the fast greedy rule is the plain loop, and the optimum is optimal."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.evaluation import quota_allocation as quota_allocation_module
from benchmarks.evaluation.quota_allocation import (
    action_quotas,
    best_allocation,
    counted_allocation,
    quota_allocation,
)
from marca_env.utils.errors import InputError


def plain_greedy(values: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Allocate pair by pair from the most valuable down; ties go to the lower request, then to the lower action."""
    left, chosen = quotas.copy(), np.full(len(values), -1)
    pairs = [(-v, i, a) for (i, a), v in np.ndenumerate(values) if v > -np.inf]
    for _, i, a in sorted(pairs):
        if chosen[i] < 0 and left[a] > 0:
            chosen[i] = a
            left[a] -= 1
    return chosen


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 25), st.integers(1, 9)),
    levels=st.integers(1, 60),
    common=st.booleans(),
    forbidden=st.floats(0, 0.6),
    block=st.integers(1, 80),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_greedy_is_the_plain_loop(seed, shape, levels, common, forbidden, block, dtype) -> None:
    """Cover ties, actions that all prefer, pairs that are not allowed, and too few or too many actions."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-levels, levels, shape).astype(dtype)
    if common:
        values += rng.integers(0, 5 * levels, shape[1]).astype(dtype)
    values[rng.random(shape) < forbidden] = -np.inf
    quotas = rng.integers(0, 6, shape[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quota_allocation_module, "BLOCK", block)
        assert quota_allocation(values, quotas).tolist() == plain_greedy(values, quotas).tolist()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 30), block=st.integers(1, 40))
def test_counts_are_repeated_rows(seed: int, levels: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-levels, levels, (7, 5)).astype(float)
    values[rng.random(values.shape) < 0.3] = -np.inf
    counts, quotas = rng.integers(0, 6, 7), rng.integers(0, 9, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quota_allocation_module, "BLOCK", block)
        states, actions, numbers = counted_allocation(values, counts, quotas)
    repeated = np.repeat(np.arange(7), counts)
    chosen = plain_greedy(values[repeated], quotas)
    expected = np.zeros((7, 5), int)
    np.add.at(expected, (repeated[chosen >= 0], chosen[chosen >= 0]), 1)
    table = np.zeros((7, 5), int)
    np.add.at(table, (states, actions), numbers)
    assert table.tolist() == expected.tolist()
    assert len(states) < 7 + 5
    assert (numbers > 0).all()


def test_hundreds_of_millions_of_requests_take_no_more_memory() -> None:
    rng = np.random.default_rng(2)
    values = rng.random((50, 40))
    counts, quotas = rng.integers(10**6, 10**7, 50), rng.integers(10**6, 10**7, 40)
    states, actions, numbers = counted_allocation(values, counts, quotas)
    assert numbers.sum() == min(counts.sum(), quotas.sum()) > 10**8
    assert (np.bincount(states, numbers, 50) <= counts).all()
    assert (np.bincount(actions, numbers, 40) <= quotas).all()
    with pytest.raises(InputError, match=r"counts of type float64, the lowest 1\.0; use integers"):
        counted_allocation(values, np.ones(50), quotas)


def test_greedy_by_hand() -> None:
    values = np.array([[5.0, 4.0], [6.0, 1.0], [5.0, 3.0]])
    assert quota_allocation(values, np.array([2, 5])).tolist() == [0, 0, 1]  # a tie at 5: the first request has it
    assert quota_allocation(values, np.array([1, 1])).tolist() == [1, 0, -1]
    assert quotas_unchanged(values)


def quotas_unchanged(values: np.ndarray) -> bool:
    quotas = np.array([2, 2])
    quota_allocation(values, quotas)
    return quotas.tolist() == [2, 2]


def test_a_large_problem_takes_each_action_as_often_as_it_may() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(1500, 400)) + 3 * rng.normal(size=400)).astype(np.float32)
    quotas = action_quotas(rng.integers(0, 400, 9000), 400, 1500)
    chosen = quota_allocation(values, quotas)
    assert np.array_equal(np.bincount(chosen, minlength=400), quotas)  # as many requests as quotas


def test_the_optimum_by_enumeration() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        values, quotas = rng.normal(size=(5, 3)), np.array([2, 2, 2])
        allowed = (c for c in itertools.product(range(3), repeat=5) if (np.bincount(c, minlength=3) <= quotas).all())
        best = max(values[np.arange(5), list(c)].sum() for c in allowed)
        for method in ("assignment", "program"):
            chosen = best_allocation(values, quotas, method=method)
            assert (np.bincount(chosen, minlength=3) <= quotas).all()
            assert values[np.arange(5), chosen].sum() == pytest.approx(best)
        assert values[np.arange(5), quota_allocation(values, quotas)].sum() <= best + 1e-12


def test_quotas_keep_the_shares_of_the_log() -> None:
    actions = np.array([0] * 50 + [2] * 30 + [3] * 20)
    assert action_quotas(actions, 4, 100).tolist() == [50, 0, 30, 20]
    assert action_quotas(actions, 4, 7).tolist() == [4, 0, 2, 1]  # 3.5, 0, 2.1, 1.4
    assert action_quotas(actions, 4, 333).sum() == 333


def test_quotas_and_values_that_cannot_be_allocated_are_refused() -> None:
    with pytest.raises(InputError, match=r"quotas of shape \(2,\) do not fit the values; use shape \(3,\)"):
        quota_allocation(np.zeros((2, 3)), np.array([1, 1]))
    with pytest.raises(InputError, match="diverged"):
        quota_allocation(np.array([[np.nan, 1.0]]), np.array([1, 1]))
    with pytest.raises(InputError, match="not negative"):
        quota_allocation(np.zeros((1, 2)), np.array([1, -1]))
    with pytest.raises(InputError, match="3 requests, quotas of 2"):
        best_allocation(np.zeros((3, 2)), np.array([1, 1]))
    with pytest.raises(InputError, match="no rows"):
        action_quotas(np.array([], dtype=int), 3, 5)
