"""A system log as arrays, and the transitions from one of its rows to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from marca_env.utils.units import MINUTES_PER_DAY
from mpc.model.conditions import Conditions

if TYPE_CHECKING:
    import pandas as pd


_LONGEST_STEP = 1.5
"""Longest step between rows without a gap, over the shortest one of the day."""


class Transitions:
    """The columns of a system log of T rows and G clusters.

    Attributes:
        load: (T,G) core-seconds per second.
        prices: (T,G) currency per core-second.
        conditions: (T) conditions of each row.
        joined: (T−1,) whether row k leads to row k + 1: no minute of the day is missing between them, and both have
            traffic and load.
        starts: the rows k that lead to row k + 1.
        undegraded: (T,) whether rows k and k + 1 have degradation level 0.
    """

    def __init__(self, log: pd.DataFrame, clusters: Sequence[str]) -> None:
        def columns(kind: str) -> np.ndarray:
            return log[[f"{kind}_{c}" for c in clusters]].to_numpy(dtype=np.float64)  # (T,G)

        self.load, self.prices = columns("load"), columns("price")
        self.conditions = Conditions(
            qps=log["qps"].to_numpy(dtype=np.float64),
            minute=log["minute"].to_numpy(dtype=np.float64),
            degradation=columns("degradation"),
        )
        day = log["day"].to_numpy()
        usable = (self.conditions.qps > 0) & (self.load > 0).all(axis=1)
        self.joined = _follows(day, self.conditions.minute) & usable[1:] & usable[:-1]
        self.starts = np.flatnonzero(self.joined)
        level_zero = (self.conditions.degradation == 0).all(axis=1)
        self.undegraded = np.append(level_zero[1:] & level_zero[:-1], False)

    def prefer_undegraded(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows without degradation if they are at least half of ``rows``, else all of ``rows``."""
        undegraded = rows[self.undegraded[rows]]
        return undegraded if 2 * len(undegraded) >= len(rows) else rows

    def costs(self, rows: np.ndarray) -> np.ndarray:
        """Return the cost (len(rows),G), core-seconds per request."""
        return self.load[rows] / self.conditions.qps[rows, None]

    def chains(self, rows: np.ndarray, steps: int) -> np.ndarray:
        """Return those of ``rows`` from which ``steps`` transitions follow without a gap."""
        rows = rows[rows + steps < len(self.load)]
        return np.array([k for k in rows if self.joined[k : k + steps].all()], dtype=np.int64)


def _follows(day: np.ndarray, minute: np.ndarray) -> np.ndarray:
    """Return whether each row (T,) follows the one before without a gap, (T−1,).

    A gap is a step that is longer than the others of its day, such as minutes without telemetry.
    """
    is_same_day = day[1:] == day[:-1]
    steps = (minute[1:] - minute[:-1]) % MINUTES_PER_DAY
    _, group = np.unique(day, return_inverse=True)
    group, shortest = group[:-1], np.full(len(day), np.inf)
    is_step = is_same_day & (steps > 0)
    np.minimum.at(shortest, group[is_step], steps[is_step])
    return is_same_day & (steps <= _LONGEST_STEP * shortest[group])
