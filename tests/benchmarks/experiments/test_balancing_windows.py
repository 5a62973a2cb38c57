"""The experiment on the changes of the time window."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.experiments.balancing_windows.experiment import METHODS, cases, loads_at_changes, tables
from benchmarks.suite.api import Row


def test_jump_and_excess_are_measured_at_the_changes():
    load = np.full((1440, 2), 0.9)
    load[240:243, 0] = 1.2
    load[480, 1] = 0.8
    minutes = pd.DataFrame({"load_a": load[:, 0], "load_b": 2 * load[:, 1], "budget_a": 1.0, "budget_b": 2.0})
    measured = loads_at_changes(minutes, ("a", "b"))
    assert measured["jump"] == pytest.approx((0.3 + 0.1) / 5)
    assert measured["peak"] == pytest.approx(0.2 / 5)
    assert measured["after"] == pytest.approx(3 * 0.2 / (5 * 10 * 2))


def test_the_table_has_the_mean_of_every_method():
    numbers = {"jump": 0.1, "peak": 0.05, "after": 0.01, "mu": 0.98, "nu": 0.002}
    rows = [Row(case, numbers, 1.0) for case in cases(quick=False)]
    (table,) = tables(rows)
    assert table.row_count == len(METHODS)
