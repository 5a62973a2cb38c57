"""The experiment on prices from a sample: revenue within the budgets, and cases that lose what the bound says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments.price_sampling.experiment import PERIODS, SHARES, cases, measure, revenue_within, tables
from benchmarks.experiments.price_sampling.next_minute import MINUTES, NEW_WINDOW, PEAK, SAMPLES, Day, Sample
from benchmarks.suite.api import Row
from marca_env.scenario.scenario import Scenario

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


def make_day(seed: int = 0) -> Day:
    """A day of four time windows with three kinds of request each."""
    return Day(Scenario.load("default"), np.full(12, 1 / 12), np.arange(12) % 4, 4, seed)


def test_a_sample_of_the_same_window_is_filled_up_from_the_day_before() -> None:
    day = make_day()
    minute = day.minute_of(NEW_WINDOW)
    assert day.window(minute) == day.window(minute - 1) + 1
    present = np.arange(12) % 4 == day.window(minute)
    plain, same = Sample(0.01, 30), Sample(0.01, 30, same_window=True)
    assert day.sample(plain, minute)[present].sum() == 0  # all of the window before
    sampled = day.sample(same, minute)
    assert sampled[~present].sum() == 0
    assert sampled.sum() == pytest.approx(0.01 * 60 * day.qps[minute : minute + 30].sum(), rel=0.05)
    in_the_middle = minute + 20
    assert day._minutes(same, in_the_middle)[:20] == list(range(in_the_middle - 1, minute - 1, -1))
    assert {day.window(k) for k in day._minutes(same, in_the_middle)} == {day.window(minute)}
    assert len(day._minutes(same, in_the_middle)) == 30


def test_the_busiest_minute_is_that_of_the_peak() -> None:
    day = make_day(3)
    assert day.qps[day.minute_of(PEAK)] == day.qps.max()
    assert day.draw(day.minute_of(PEAK)).sum() == pytest.approx(60 * day.qps.max(), rel=0.02)


@pytest.mark.slow
def test_the_loss_is_small_and_grows_with_smaller_samples(tmp_path: Path) -> None:
    rows = [Row(case, measure(case, tmp_path), 1.0) for case in cases(quick=True, seeds=[0])]
    assert all(row.numbers["loss"] > -1e-6 for row in rows)
    within = [row for row in rows if row.case.task in PERIODS]
    by_share = [np.mean([row.numbers["loss"] for row in within[k :: len(SHARES)]]) for k in range(len(SHARES))]
    assert by_share[0] < by_share[-1]
    new = {row.case.method: row.numbers["loss"] for row in rows if row.case.task == NEW_WINDOW}
    assert new[Sample(0.01, 60, True).name] < new[Sample(0.01, 60).name]
    (table,) = tables(rows)
    assert table.row_count == len(PERIODS) * len(SHARES) + len(MINUTES) * len(SAMPLES)
