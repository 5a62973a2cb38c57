"""A factory of observations for tests of balancers."""

from __future__ import annotations

import numpy as np

from marca_env.traffic.control import ControlObservation


def observation(load, prices=(1.0,), budget=None, qps=100.0, minute=0, level=0) -> ControlObservation:
    """Return telemetry of one or more clusters; the budgets are 1 unless passed."""
    load = np.atleast_1d(np.asarray(load, dtype=float))
    budget = np.ones_like(load) if budget is None else np.asarray(budget, dtype=float)
    zeros = np.zeros(len(load))
    return ControlObservation(
        minute, qps, load, budget, zeros.astype(int) + level, zeros, np.array(prices, dtype=float)
    )
