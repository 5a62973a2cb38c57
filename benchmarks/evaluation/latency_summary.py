"""Latency of a simulated day, from its minutes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

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


def latency_table(title: str, kind: str, rows: Mapping[str, Mapping[str, Any]], **style: Any) -> Table | None:
    """Return the table of latency of those that have a ``latency``: milliseconds, and the share late.

    Args:
        title: of the table.
        kind: what the rows are, ``policy`` or ``method``.
        rows: name → its summary; those without a limit have no latency.
        style: options of the table.

    Returns:
        The table, or ``None`` if nobody has a limit.
    """
    timed = {name: row["latency"] for name, row in rows.items() if "latency" in row}
    if not timed:
        return None
    table = Table(title=title, caption=LEGEND, **style)
    table.add_column(kind, no_wrap=True)
    for name in ("p50, ms", "p99, ms", "late"):
        table.add_column(name, justify="right")
    for name, latency in timed.items():
        table.add_row(name, *latency_cells(latency))
    return table


def latency_cells(latency: Mapping[str, float]) -> list[str]:
    """Return the cells of a table: p50 and p99 in milliseconds, and the share late."""
    return [f"{1e3 * latency['p50']:,.2f}", f"{1e3 * latency['p99']:,.2f}", f"{latency['late']:.2%}"]
