"""Transitions of a system log: from a row to the next one, and never across minutes that are missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mpc.model.transitions import Transitions


def log_of(day: list[int], minute: list[int]) -> pd.DataFrame:
    n = len(day)
    columns = {"load_a": 1.0, "price_a": 1.0, "degradation_a": 0}
    return pd.DataFrame({"day": day, "minute": minute, "qps": np.ones(n)}).assign(**columns)


@pytest.mark.parametrize(
    ("day", "minute", "joined"),
    [
        ([0, 0, 0, 1, 1], [7, 8, 9, 0, 1], [1, 1, 0, 1]),
        ([0, 0, 0, 0, 0], [7, 8, 40, 41, 42], [1, 0, 1, 1]),  # half an hour without telemetry
        ([0, 0, 0, 0, 0], [5, 10, 15, 25, 30], [1, 1, 0, 1]),  # a control period of five minutes
        ([0, 0, 1, 1, 1], [0, 5, 0, 1, 2], [1, 0, 1, 1]),  # each day has its own step
        ([3, 3, 4, 4, 4], [1439, 0, 5, 5, 6], [1, 0, 1, 1]),  # past midnight under one day; a minute twice
        ([0, 0, 0, 0, 0], [9, 8, 7, 8, 9], [0, 0, 1, 1]),  # backwards
    ],
)
def test_no_transition_leads_across_a_gap(day, minute, joined):
    assert Transitions(log_of(day, minute), ["a"]).joined.astype(int).tolist() == joined
