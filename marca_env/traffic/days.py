"""Scenarios of a day: its traffic, lost machines, drifting costs, and announced traffic.

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
from marca_env.traffic.time_series import TraceOptions
from marca_env.traffic.workload import Traffic, daily_traffic, read_trace
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.units import MINUTES_PER_DAY

SALE_FACTOR = 10.0
SALE_HALF_LIFE = 90.0
"""Announced half-life of a sale, minutes; the real one is drawn from 60 to 120."""
LOST_SHARE = 1 / 3
"""Share of the cores and of the budget that is lost with the machines."""


@dataclass(frozen=True)
class DayScenario:
    """A day to simulate."""

    name: str
    traffic: Traffic
    """Mean rate of each minute."""
    changes: SystemChanges
    """Changes of the clusters."""
    announced: np.ndarray | None = None
    """(1440,) announced log of the traffic over the usual one, for each minute of the day; ``None``: nothing."""

    def __len__(self) -> int:
        return len(self.traffic)


def generated(name: str, scenario: Scenario, seed: int, minutes: int = MINUTES_PER_DAY) -> DayScenario:
    """Generate a day; every seed gives another one.

    Args:
        name: one of :data:`GENERATED`.
        scenario: sets the peak rate.
        seed: seed of the traffic and of the changes.
        minutes: length of the day.

    Raises:
        InputError: an unknown name, or less than one minute.
    """
    if name not in GENERATED:
        raise InputError(unknown_option("traffic", name, GENERATED))
    if minutes < 1:
        raise InputError(f"minutes is {minutes}; use at least 1")
    return GENERATED[name](scenario, seed, minutes)


def from_trace(
    path: str | Path,
    scenario: Scenario,
    minutes: int,
    start: str | None = None,
    options: TraceOptions | None = None,
) -> DayScenario:
    """Read a day without events from a trace file, by :func:`marca_env.traffic.workload.read_trace`."""
    traffic = read_trace(path, scenario, minutes, start, options)
    return DayScenario(traffic.name, traffic, SystemChanges.none(len(traffic), len(scenario.clusters)))


def _smooth(scenario: Scenario, seed: int, minutes: int) -> DayScenario:
    """Generate a day without events."""
    traffic = daily_traffic(scenario, np.random.default_rng([seed, 31]), minutes)
    return DayScenario("smooth", traffic, SystemChanges.none(minutes, len(scenario.clusters)))


def _flash_sale(scenario: Scenario, seed: int, minutes: int) -> DayScenario:
    """Generate a day with an announced flash sale."""
    traffic, start = sale_with_start(scenario, seed, minutes, SALE_FACTOR)
    since = np.arange(MINUTES_PER_DAY) - start
    surge = np.where(since >= 0, (SALE_FACTOR - 1) * 0.5 ** (np.maximum(since, 0) / SALE_HALF_LIFE), 0.0)
    return DayScenario("flash-sale", traffic, SystemChanges.none(minutes, len(scenario.clusters)), np.log1p(surge))


def _machine_loss(scenario: Scenario, seed: int, minutes: int) -> DayScenario:
    """Generate a day on which every cluster loses a third of its cores, at 8 to 13 o'clock, for two to five hours."""
    rng, day = np.random.default_rng([seed, 32]), _smooth(scenario, seed, minutes)
    begin = int(minutes * rng.uniform(8, 13) / 24)
    end = begin + max(1, int(minutes * rng.uniform(2, 5) / 24))
    day.changes.capacity[begin:end] -= LOST_SHARE
    return DayScenario("machine-loss", day.traffic, day.changes)


def _drift(scenario: Scenario, seed: int, minutes: int) -> DayScenario:
    """Generate a day over which the cost of a request rises by 20 to 50 % on each cluster; no fitted model knows."""
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
    """Generate a day at a tenth of the peak on which a sale multiplies the traffic by ``factor`` within a minute.

    The sale starts within an hour of noon and fades with a half-life of one to two hours.
    """
    return sale_with_start(pool.scenario, seed, minutes, factor)[0]


def sale_with_start(scenario: Scenario, seed: int, minutes: int, factor: float) -> tuple[Traffic, int]:
    """Generate the traffic of :func:`flash_sale`, and return it with the minute in which the sale starts."""
    rng = np.random.default_rng([seed, 8])
    day = daily_traffic(scenario, rng, minutes)
    base = day.qps / day.qps.max() * scenario.peak_qps / factor
    start, half = int(minutes * rng.uniform(0.46, 0.54)), rng.uniform(60, 120)
    since = np.arange(minutes) - start
    surge = np.where(since >= 0, (factor - 1) * 0.5 ** (np.maximum(since, 0) / half), 0.0)
    qps = base * (1 + surge * base[start] / np.maximum(base, 1e-9))
    return Traffic("flash sale", np.minimum(qps, scenario.peak_qps)), start
