"""Latency of a day: means over requests, and nothing without a limit."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from benchmarks.days.compare_policies import tables_of
from benchmarks.evaluation.latency_summary import latency_cells, latency_summary


def test_minutes_count_by_their_requests_and_empty_ones_not_at_all() -> None:
    minutes = pd.DataFrame(
        {
            "requests": [100, 300, 0],
            "latency_p50": [0.001, 0.002, np.nan],
            "latency_p99": [0.004, 0.008, np.nan],
            "late": [0.0, 0.2, np.nan],
        }
    )
    summary = latency_summary(minutes)
    assert summary is not None
    assert np.allclose([summary[name] for name in ("p50", "p99", "late")], [0.00175, 0.007, 0.15])
    assert latency_cells(summary) == ["1.75", "7.00", "15.00%"]
    empty = latency_summary(minutes.iloc[2:])
    assert empty is not None
    assert all(math.isnan(value) for value in empty.values())
    assert latency_summary(minutes.drop(columns="late")) is None


def test_the_table_of_latency_is_there_if_there_is_a_limit() -> None:
    row = {"revenue": 1.0, "gmv": None, "impressions": None, "clicks": None, "uplift": None, "bound_share": None}
    row |= {"ctr": None, "roi": None, "utilisation": {"a": 0.5}, "overutilisation": {"a": 0.0}}
    summary = {"trace": "day", "seeds": [0], "policies": {"static": row}}
    assert len(tables_of(summary)) == 2
    timed = {**summary, "policies": {"static": {**row, "latency": {"p50": 0.001, "p99": 0.002, "late": 0.01}}}}
    *_, table = tables_of(timed)
    assert [column.header for column in table.columns] == ["policy", "p50, ms", "p99, ms", "late"]
