"""The experiment on prices from a sample: revenue within the budgets, and cases that lose what the bound says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments.price_sampling.experiment import PERIODS, SHARES, cases, measure, revenue_within, tables
from benchmarks.suite.api import Row

VALUES = np.array([[0.0, 4.0], [0.0, 3.0]])
COSTS = np.array([[[1.0], [3.0]], [[1.0], [3.0]]])
COUNTS = np.array([10, 10])


def test_prices_that_fit_the_budget_are_left_alone() -> None:
    earned, use = revenue_within(VALUES, COSTS, COUNTS, np.array([45.0]), np.array([1.8]))
    assert (earned, use.tolist()) == (40.0, [40.0])  # only the first kind is worth 2 × 1.8


def test_prices_that_are_too_low_are_raised_and_the_last_step_is_shared() -> None:
    earned, use = revenue_within(VALUES, COSTS, COUNTS, np.array([45.0]), np.array([0.5]))
    assert use.tolist() == [60.0]
    assert earned == pytest.approx(40.0 + 0.25 * 30.0)  # a quarter of the second kind fits


@pytest.mark.slow
def test_the_loss_is_small_and_grows_with_smaller_samples(tmp_path: Path) -> None:
    rows = [Row(case, measure(case, tmp_path), 1.0) for case in cases(quick=True, seeds=[0])]
    assert all(row.numbers["loss"] > -1e-6 for row in rows)
    by_share = [np.mean([row.numbers["loss"] for row in rows[k :: len(SHARES)]]) for k in range(len(SHARES))]
    assert by_share[0] < by_share[-1]
    (table,) = tables(rows)
    assert table.row_count == len(PERIODS) * len(SHARES)
