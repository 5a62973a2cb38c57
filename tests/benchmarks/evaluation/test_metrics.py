"""Metrics against hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.evaluation import metrics
from marca_env.utils.errors import InputError


def test_ratio_interval_covers_and_narrows():
    rng = np.random.default_rng(0)
    base = rng.gamma(20, size=400)
    better = 1.1 * base + rng.normal(0, 0.5, 400)
    low, high = metrics.ratio_interval(better, base)
    assert low < 0.1 < high
    wide = metrics.ratio_interval(better[:20], base[:20])
    assert high - low < wide[1] - wide[0]
    assert metrics.ratio_interval(better, base) == (low, high)


def test_one_block_has_no_interval():
    assert np.isnan(metrics.ratio_interval(np.ones(1), np.ones(1))).all()


def test_rising_order_is_a_stable_sort():
    rng = np.random.default_rng(0)
    for n in (1, 2, 300):
        values = rng.normal(size=n).round(1)
        values[rng.integers(0, n, 3)] = [-0.0, 0.0, -np.inf]
        for x in (values, values.astype(np.float32)):
            assert metrics.rising_order(x).tolist() == np.argsort(x, kind="stable").tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spearman_agrees_with_scipy_with_ties(dtype):
    rng = np.random.default_rng(1)
    true = rng.normal(size=(40, 25)).round(1).astype(dtype)
    predicted = (true + rng.normal(size=true.shape)).round(1).astype(dtype)
    expected = stats.spearmanr(predicted.ravel(), true.ravel()).statistic
    assert metrics.spearman(predicted, true) == pytest.approx(expected)
    assert metrics.spearman(predicted, true, true_ranks=metrics.ranks(true)) == pytest.approx(expected)
    assert metrics.spearman(np.exp(true.astype(float)), true) == pytest.approx(1.0)
    assert metrics.ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert np.isnan(metrics.spearman(np.ones(5), np.arange(5.0)))
    with pytest.raises(InputError, match="the same shape"):
        metrics.spearman(np.ones(3), np.ones(4))
    with pytest.raises(InputError, match="finite"):
        metrics.spearman(np.array([1.0, np.nan]), np.ones(2))


def test_return_percent_by_hand():
    assert metrics.return_percent(np.array([1.0, 2.0]), np.array([2.0, 4.0])) == pytest.approx(50.0)
    with pytest.raises(InputError, match="earns 0"):
        metrics.return_percent(np.ones(2), np.zeros(2))


def test_percentage_errors_by_hand():
    predicted, true = np.array([1.0, 4.0, 3.0, 0.0]), np.array([2.0, 2.0, 0.0, 1.0])
    assert metrics.percentage_error(predicted, true)[[0, 1, 3]] == pytest.approx([-0.5, 1.0, -1.0])
    assert np.isnan(metrics.percentage_error(predicted, true)[2])
    assert metrics.absolute_percentage_error(predicted, true)[:2] == pytest.approx([1.0, 1.0])  # half and twice
    assert np.isnan(metrics.absolute_percentage_error(predicted, true)[2:]).all()
