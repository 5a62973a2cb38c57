"""Figures of merit against hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import metrics


def test_utilisation_and_overutilisation_by_hand():
    load = np.array([[5.0, 20.0], [15.0, 20.0], [10.0, 40.0]])
    budget = np.array([10.0, 20.0])
    assert metrics.utilisation(load, budget) == pytest.approx([(0.5 + 1 + 1) / 3, 1.0])
    assert metrics.overutilisation(load, budget) == pytest.approx([0.5 / 3, 1.0 / 3])


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
