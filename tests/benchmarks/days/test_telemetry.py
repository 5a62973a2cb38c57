"""Simulated telemetry: the prices it is disturbed around."""

from __future__ import annotations

import numpy as np

from benchmarks.days.telemetry import usual_prices
from tests.helpers.small_system import PEAK_QPS, make_pool


def test_usual_prices_are_positive_and_rise_with_traffic() -> None:
    pool = make_pool(per_window=20)
    calm, busy = usual_prices(pool, 20.0), usual_prices(pool, PEAK_QPS)
    assert np.all(calm > 0)
    assert np.all(busy > calm)
