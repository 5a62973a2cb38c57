"""Rates of several kinds of work, measured in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

Work = Callable[[], int]
"""Does something, and returns how many times it did it."""


def measure_rates(work: Mapping[Any, Work], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure the rate of each kind of work, ``rounds`` times in turn for ``seconds`` each, after one warm-up run.

    Returns:
        Rows of ``what`` (the key in ``work``) and ``per_second`` as [median, lowest, highest].
    """
    for do in work.values():
        do()
    rates: dict[Hashable, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, do in work.items():
            rates[name].append(_rate(do, seconds))
    return [
        {"what": name, "per_second": [statistics.median(values), min(values), max(values)]}
        for name, values in rates.items()
    ]


def _rate(do: Work, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or count == 0:
        count += do()
    return count / passed
