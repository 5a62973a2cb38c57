"""Allocation under quotas: the fast greedy rule is the plain loop, and the optimum is optimal."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.evaluation import quota_allocation as quota_allocation_module
from benchmarks.evaluation.published_samples import read_keyed, read_state_counts, sample_returns
from benchmarks.evaluation.quota_allocation import action_quotas, best_allocation, quota_allocation
from marca_env.utils.errors import InputError
from tests.helpers.paths import SAMPLES

needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are not here")


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
    with pytest.raises(InputError, match="one quota per action"):
        quota_allocation(np.zeros((2, 3)), np.array([1, 1]))
    with pytest.raises(InputError, match="diverged"):
        quota_allocation(np.array([[np.nan, 1.0]]), np.array([1, 1]))
    with pytest.raises(InputError, match="not negative"):
        quota_allocation(np.zeros((1, 2)), np.array([1, -1]))
    with pytest.raises(InputError, match="3 requests, quotas of 2"):
        best_allocation(np.zeros((3, 2)), np.array([1, 1]))
    with pytest.raises(InputError, match="no rows"):
        action_quotas(np.array([], dtype=int), 3, 5)


def write_samples(folder: Path) -> None:
    (folder / "action_quota.csv").write_text("1,0,0,1,2,3,9\n0,0,0,1,1,10,9\n")
    (folder / "state_counts.csv").write_text("4,7,90,DC_0,1,2\n5,7,91,DC_1,1,2")
    keys = ["4_7_90_DC_0_1_0_0_1_2,3.0", "4_7_90_DC_0_0_0_0_1_1,1.0", "5_7_91_DC_1_1_0_0_1_2,2.0"]
    keys.append("5_7_91_DC_1_0_0_0_1_1,0.5")
    (folder / "expert_scores.csv").write_text("index,key,value\n" + "\n".join(f"{k},{x}" for k, x in enumerate(keys)))
    (folder / "allocation_rule.csv").write_text(
        "index,key,value\n0,4_7_90_DC_0_0_0_0_1_1,2\n1,5_7_91_DC_1_1_0_0_1_2,2\n"
    )


def test_return_of_the_published_layout_by_hand(tmp_path: Path) -> None:
    """Greedy earns 3 + 3 + 2 and, the third action being used up, 0.5; the rule 1 + 1 + 2 + 2."""
    write_samples(tmp_path)
    assert sample_returns(tmp_path) == {"rule": pytest.approx(100 * 6.0 / 8.5)}
    (tmp_path / "expert_scores.csv").write_text("index,key,value\n0,4_7,3.0\n")
    with pytest.raises(InputError, match="row 1, column 'key': '4_7' is malformed"):
        sample_returns(tmp_path)


@needs_samples
def test_the_published_samples_can_be_scored() -> None:
    counts = read_state_counts(SAMPLES / "state_counts.csv")
    assert (len(counts), counts["num"].sum()) == (10, 70)
    assert read_keyed(SAMPLES / "allocation_dqn.csv")["value"].sum() == 70
    returns = sample_returns(SAMPLES)
    assert set(returns) == {"dqn", "marca"}
    assert all(0 < value < 1000 for value in returns.values())
