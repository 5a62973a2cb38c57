"""Rows of a system log from readings of the telemetry."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.serving.telemetry import TelemetryReading
from marca_env.utils.units import MINUTES_PER_DAY, SECONDS_PER_MINUTE


def minute_row(
    reading: TelemetryReading, clusters: Sequence[str], prices: Sequence[float], revenue: float | None = None
) -> dict[str, Any]:
    """Return the row of a usable reading, in the columns of a system log.

    Args:
        reading: the reading.
        clusters: names of the G clusters.
        prices: (G,) in force in the minute, currency per core-second; empty: none were published, written as 0.
        revenue: revenue per request, currency; ``None``: not measured, written as 0.
    """
    zeros = (0,) * len(clusters)
    row: dict[str, Any] = {
        "day": day_of(reading.minute, time.time()),
        "minute": reading.minute,
        "qps": reading.qps,
    }
    parts = {
        "load": reading.load or zeros,
        "price": tuple(prices) or zeros,
        "degradation": reading.degradation or zeros,
        "backlog": reading.backlog or zeros,
    }
    for k, cluster in enumerate(clusters):
        row |= {f"{name}_{cluster}": values[k] for name, values in parts.items()}
    return row | {"revenue": 0.0 if revenue is None else revenue * reading.qps * SECONDS_PER_MINUTE}


def day_of(minute: int, now: float) -> int:
    """Return the day of a minute of the day that was measured about now, counted from 1970.

    The last minute of a day comes in after midnight. Where the sender's clock is local, its days begin at its midnight.

    Args:
        minute: 0 … 1439.
        now: Unix time, seconds.
    """
    return round((now / SECONDS_PER_MINUTE - minute) / MINUTES_PER_DAY)
