"""What a day brings: its traffic, machines that are lost, costs that drift, and what was announced beforehand.

Shapes: T minutes, G clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.simulated_system import SystemChanges
from marca_env.traffic.workload import Traffic, daily_traffic, read_trace
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.units import MINUTES_PER_DAY

SALE_FACTOR = 10.0
SALE_HALF_LIFE = 90.0
"""Minutes: what is announced of how fast a sale fades; how fast it does is drawn from 60 to 120."""
LOST = 1 / 3
"""Share of the cores and of the budget that a loss of machines takes."""


@dataclass(frozen=True)
class DayScenario:
    """A day as it will be."""

    name: str
    traffic: Traffic
    changes: SystemChanges
    announced: np.ndarray | None = None
    """(1440,) logarithm of the traffic of each minute of the day over the usual one, as far as it is known before."""

    def __len__(self) -> int:
        return len(self.traffic)


def generated(name: str, scenario: Scenario, seed: int, minutes: int = MINUTES_PER_DAY) -> DayScenario:
    """A generated day; every seed has its own.

    Args:
        name: one of :data:`GENERATED`.
        scenario: sets the peak rate.
        seed: of the traffic and of what happens.
        minutes: length.

    Raises:
        InputError: an unknown name, or no minute at all.
    """
    if name not in GENERATED:
        raise InputError(unknown_option("traffic", name, GENERATED))
    if minutes < 1:
        raise InputError(f"minutes is {minutes}; ask for at least one")
    return GENERATED[name](scenario, seed, minutes)


def from_trace(path: str | Path, scenario: Scenario, minutes: int, start: str | None = None) -> DayScenario:
    """A day of a trace file; see :func:`marca_env.traffic.workload.read_trace`."""
    traffic = read_trace(path, scenario, minutes, start)
    return DayScenario(traffic.name, traffic, SystemChanges.none(len(traffic), len(scenario.clusters)))


def _smooth(scenario: Scenario, seed: int, minutes: int) -> DayScenario:
    traffic = daily_traffic(scenario, np.random.default_rng([seed, 31]), minutes)
    return DayScenario("smooth", traffic, SystemChanges.none(minutes, len(scenario.clusters)))


def _flash_sale(scenario: Scenario, seed: int, minutes: int) -> DayScenario:
    traffic, start = sale_with_start(scenario, seed, minutes, SALE_FACTOR)
    since = np.arange(MINUTES_PER_DAY) - start
    surge = np.where(since >= 0, (SALE_FACTOR - 1) * 0.5 ** (np.maximum(since, 0) / SALE_HALF_LIFE), 0.0)
    return DayScenario("flash-sale", traffic, SystemChanges.none(minutes, len(scenario.clusters)), np.log1p(surge))


def _machine_loss(scenario: Scenario, seed: int, minutes: int) -> DayScenario:
    """A third of every cluster goes between 8 and 13 o'clock and is back two to five hours later."""
    rng, day = np.random.default_rng([seed, 32]), _smooth(scenario, seed, minutes)
    begin = int(minutes * rng.uniform(8, 13) / 24)
    end = begin + max(1, int(minutes * rng.uniform(2, 5) / 24))
    day.changes.capacity[begin:end] -= LOST
    return DayScenario("machine-loss", day.traffic, day.changes)


def _drift(scenario: Scenario, seed: int, minutes: int) -> DayScenario:
    """What a request costs a cluster rises by 20 to 50 % over the day; nothing that was fitted knows."""
    rng, day = np.random.default_rng([seed, 33]), _smooth(scenario, seed, minutes)
    rise = rng.uniform(0.2, 0.5, len(scenario.clusters))
    day.changes.cost[:] = 1 + rise * np.linspace(0, 1, minutes)[:, None]
    return DayScenario("drift", day.traffic, day.changes)


GENERATED: dict[str, Callable[[Scenario, int, int], DayScenario]] = {
    "smooth": _smooth,
    "flash-sale": _flash_sale,
    "machine-loss": _machine_loss,
    "drift": _drift,
}


def flash_sale(pool: RequestPool, seed: int, minutes: int = MINUTES_PER_DAY, factor: float = 10.0) -> Traffic:
    """A day at a tenth of the peak on which a sale multiplies the traffic by ``factor`` from one minute to the next.

    The sale starts at noon give or take an hour and fades with a half-life of one to two hours.
    """
    return sale_with_start(pool.scenario, seed, minutes, factor)[0]


def sale_with_start(scenario: Scenario, seed: int, minutes: int, factor: float) -> tuple[Traffic, int]:
    """:func:`flash_sale` and the minute that the sale starts in."""
    rng = np.random.default_rng([seed, 8])
    day = daily_traffic(scenario, rng, minutes)
    base = day.qps / day.qps.max() * scenario.peak_qps / factor
    start, half = int(minutes * rng.uniform(0.46, 0.54)), rng.uniform(60, 120)
    since = np.arange(minutes) - start
    surge = np.where(since >= 0, (factor - 1) * 0.5 ** (np.maximum(since, 0) / half), 0.0)
    qps = base * (1 + surge * base[start] / np.maximum(base, 1e-9))
    return Traffic("flash sale", np.minimum(qps, scenario.peak_qps)), start
