"""The traffic of the end of a system log, to rehearse a controller on what really came."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from marca_env.scenario.scenario import Scenario
from marca_env.traffic.days import DayScenario
from marca_env.traffic.simulated_system import SystemChanges
from marca_env.traffic.workload import HISTORY_DAYS, Traffic
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY

MOST_DAYS = 366
"""Longest time from the first to the last row of a log, days."""


def logged_day(log: pd.DataFrame, scenario: Scenario, minutes: int, where: str | Path) -> DayScenario:
    """Return the last ``minutes`` minutes of a system log as traffic, and those before them as its history.

    Rates are not scaled. Minutes that the log lacks are interpolated.

    Args:
        log: a system log; its columns ``day`` and ``minute`` say when a row was.
        scenario: the system.
        minutes: length of the replay.
        where: source of the log, for messages.

    Raises:
        InputError: a shorter log, or one that spans more than a year.
    """
    at = _times(log)
    first, last = int(at.min()), int(at.max())
    if last - first >= MOST_DAYS * MINUTES_PER_DAY:
        raise InputError(f"{where}: column 'day' spans {(last - first) // MINUTES_PER_DAY} days; keep at most a year")
    if last - first + 1 < minutes:
        raise InputError(
            f"{where}: {last - first + 1} minutes, and --minutes is {minutes}; give a longer log, or fewer"
        )
    rates = pd.Series(log["qps"].to_numpy(dtype=np.float64), index=at).groupby(level=0).last()
    qps = rates.reindex(range(first, last + 1)).interpolate().to_numpy()
    start = len(qps) - minutes
    history = qps[max(0, start - HISTORY_DAYS * MINUTES_PER_DAY) : start]
    traffic = Traffic("log", qps[start:], (first + start) % MINUTES_PER_DAY, history if len(history) else None)
    return DayScenario("log", traffic, SystemChanges.none(minutes, len(scenario.clusters)))


def rows_before(log: pd.DataFrame, minutes: int, where: str | Path) -> pd.DataFrame:
    """Return the rows before the last ``minutes`` minutes, on which a system model may be fitted.

    Raises:
        InputError: fewer rows than are replayed: a model of them would know the day that it is judged on.
    """
    at = _times(log)
    before = log[at <= at.max() - minutes]
    if len(before) < minutes:
        raise InputError(
            f"{where}: {len(before)} rows before the {minutes} minutes that --traffic log replays; give a log with "
            "more days, or a system model of earlier ones (--model DIR)"
        )
    return before.reset_index(drop=True)


def _times(log: pd.DataFrame) -> np.ndarray:
    """Return the minute of each row, counted from the start of day 0."""
    return log["day"].to_numpy(dtype=np.int64) * MINUTES_PER_DAY + log["minute"].to_numpy(dtype=np.int64)
