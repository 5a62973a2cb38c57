"""Statistics over runs against known values, SciPy and counts by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from benchmarks.evaluation.statistics import (
    iqm,
    iqm_interval,
    paired_difference,
    performance_profile,
    probability_of_improvement,
)
from marca_env.utils.errors import InputError

runs = st.integers(1, 7).flatmap(lambda n: arrays(float, n, elements=st.integers(-3, 3)))


@settings(max_examples=60, deadline=None)
@given(runs, runs)
def test_probability_of_improvement_is_u_over_all_pairs(x: np.ndarray, y: np.ndarray) -> None:
    found, low, high = probability_of_improvement(x, y, resamples=50)
    assert found == pytest.approx(stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)))
    assert found + probability_of_improvement(y, x, resamples=1)[0] == pytest.approx(1)
    assert found == probability_of_improvement(np.exp(x), np.exp(y), resamples=1)[0]
    if min(len(x), len(y)) > 1:
        assert 0 <= low <= high <= 1 + 1e-12
    else:
        assert np.isnan([low, high]).all()


def test_probability_of_improvement_averages_tasks_and_its_interval_covers() -> None:
    x, y = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[0.0, 0.0], [0.0, 5.0]])
    assert probability_of_improvement(x, y)[0] == (1 + 0.25) / 2
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(1 / np.sqrt(2))
    spans = [
        probability_of_improvement(rng.normal(1, 1, 30), rng.normal(0, 1, 30), resamples=400)[1:] for _ in range(100)
    ]
    assert 0.88 <= np.mean([low <= truth <= high for low, high in spans]) <= 1
    assert probability_of_improvement(np.ones(5), np.zeros(5)) == (1, 1, 1)


def test_intervals_draw_runs_within_a_task() -> None:
    """Runs of one task are never compared with those of another: drawn together these would spread."""
    x, y = np.array([[0.0, 100.0]] * 5), np.array([[50.0, 50.0]] * 5)
    assert probability_of_improvement(x, y) == pytest.approx((0.5, 0.5, 0.5))
    assert [v.tolist() for v in performance_profile(x, np.array([50.0]))] == [[0.5]] * 3


@settings(max_examples=40, deadline=None)
@given(arrays(float, st.tuples(st.integers(1, 6), st.integers(1, 3)), elements=st.integers(-3, 3)))
def test_a_profile_falls_from_one_to_zero(scores: np.ndarray) -> None:
    thresholds = np.array([-4.0, -1.5, 0.0, 1.5, 3.0])
    share, low, high = performance_profile(scores, thresholds, resamples=30)
    assert share[0] == 1
    assert share[-1] == 0
    assert (np.diff(share) <= 0).all()
    assert share.tolist() == pytest.approx([(scores > t).mean() for t in thresholds])
    if len(scores) > 1:
        assert ((low <= high + 1e-12) & (low >= 0) & (high <= 1 + 1e-12)).all()
        assert (low[0], high[-1]) == pytest.approx((1, 0))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7).flatmap(lambda n: arrays(float, (2, n), elements=st.integers(-4, 4))))
def test_sign_flips_are_those_counted_by_hand(pair: np.ndarray) -> None:
    a, b = pair
    gaps = a - b
    flips = [float(np.mean(np.array(s) * gaps)) for s in itertools.product((1, -1), repeat=len(gaps))]
    above, below = np.mean(np.array(flips) >= gaps.mean() - 1e-9), np.mean(np.array(flips) <= gaps.mean() + 1e-9)
    found = paired_difference(a, b, resamples=200)
    assert found.p == pytest.approx(min(1, 2 * min(above, below)))
    assert found.p >= found.least_p - 1e-12
    assert found.least_p == 2.0 ** (1 - len(gaps))
    assert found.mean == pytest.approx(gaps.mean())


def test_common_random_numbers_narrow_the_difference() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 10, 12)
    a, b = shared + 1 + rng.normal(0, 0.2, 12), shared + rng.normal(0, 0.2, 12)
    found = paired_difference(a, b)
    assert 0.7 < found.low < found.mean < found.high < 1.3
    assert found.p == found.least_p == 2 / 2**12
    assert paired_difference(a, b) == found
    assert paired_difference(a, b[::-1]).p > 0.05
    assert paired_difference(a[:5], b[:5]).p == 0.0625


def test_the_interval_of_few_pairs_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(3)
    gaps = [paired_difference(rng.normal(0, 1, 5), np.zeros(5), resamples=1) for _ in range(400)]
    assert np.mean([found.low <= 0 <= found.high for found in gaps]) >= 0.92


def test_many_pairs_are_flipped_at_random() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(1, 1, 60)
    found = paired_difference(a, np.zeros(60), resamples=999)
    assert found.p == found.least_p == 2 / 1000
    assert paired_difference(np.zeros(60), np.zeros(60), resamples=99).p == 1
    assert np.isnan(paired_difference(np.ones(1), np.zeros(1)).low)


def test_scores_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(InputError, match="x has 2 tasks and y 3; pass scores of the same tasks"):
        probability_of_improvement(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(InputError, match="scores: pass finite"):
        performance_profile(np.array([np.nan, 1.0]), np.array([0.0]))
    for a, b in ((np.ones(2), np.ones(3)), (np.ones(0), np.ones(0)), (np.array([np.inf]), np.ones(1))):
        with pytest.raises(InputError, match="pairs of shapes"):
            paired_difference(a, b)


def test_iqm_leaves_out_a_quarter_at_each_end():
    scores = np.array([[-100.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 1000.0]])
    assert iqm(scores) == pytest.approx((2 + 3 + 4 + 5) / 4)
    low, high = iqm_interval(scores)
    assert low < iqm(scores) < high
    many = np.random.default_rng(0).normal(1.0, 1.0, (100, 3))
    assert np.diff(iqm_interval(many)) < np.diff(iqm_interval(many[:10]))
    assert iqm_interval(many) == iqm_interval(many)
    assert np.isnan(iqm_interval(np.ones((1, 3)))).all()


def test_iqm_interval_draws_runs_within_a_task():
    """Tasks of different scale do not widen it: drawn together they would."""
    scores = np.array([[0.0, 100.0, 50.0, 50.0]] * 5)
    assert iqm_interval(scores) == (50.0, 50.0)
