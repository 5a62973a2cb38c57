"""Latency of a simulated day, from its minutes."""

from __future__ import annotations

import numpy as np
import pandas as pd

COLUMNS = {"p50": "latency_p50", "p99": "latency_p99", "late": "late"}
"""Name in a summary → column of the minutes."""
LEGEND = "p50, p99: means over the requests of the minute's quantiles · late: share of the requests"


def latency_summary(minutes: pd.DataFrame) -> dict[str, float] | None:
    """Return the means over requests of the minutes' latency; ``None`` without a latency limit.

    Args:
        minutes: rows of :func:`marca_env.traffic.day_simulator.replay`; minutes without requests do not count.

    Returns:
        ``p50`` and ``p99`` in seconds, and ``late``, the share of the requests.
    """
    if not set(COLUMNS.values()) <= set(minutes.columns):
        return None
    answered = minutes.dropna(subset=list(COLUMNS.values()))
    weights = answered["requests"].to_numpy(dtype=np.float64)
    if weights.sum() <= 0:
        return dict.fromkeys(COLUMNS, float("nan"))
    return {name: float(np.average(answered[column], weights=weights)) for name, column in COLUMNS.items()}


def latency_cells(latency: dict[str, float]) -> list[str]:
    """Return the cells of a table: p50 and p99 in milliseconds, and the share late."""
    return [f"{1e3 * latency['p50']:,.2f}", f"{1e3 * latency['p99']:,.2f}", f"{latency['late']:.2%}"]
