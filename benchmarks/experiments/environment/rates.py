"""Rates of several kinds of work, measured in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

Work = Callable[[], int]
"""Does some work once; returns the number of units that were done, such as steps."""


def measure_rates(work: Mapping[Any, Work], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure the rate of each kind of work, ``rounds`` times in turn for ``seconds`` each, after one warm-up run.

    Returns:
        Rows of ``what`` (the key in ``work``) and ``per_second`` as [median, lowest, highest].
    """
    for run_once in work.values():
        run_once()
    rates: dict[Hashable, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run_once in work.items():
            rates[name].append(_rate(run_once, seconds))
    return [
        {"what": name, "per_second": [statistics.median(values), min(values), max(values)]}
        for name, values in rates.items()
    ]


def _rate(run_once: Work, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or count == 0:
        count += run_once()
    return count / passed
