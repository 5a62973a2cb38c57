"""A system log as arrays, and the transitions from one of its rows to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpc.model.conditions import Conditions

if TYPE_CHECKING:
    import pandas as pd


class Transitions:
    """The columns of a system log of T rows and G clusters.

    Attributes:
        load: (T,G) core-seconds per second.
        prices: (T,G) currency per core-second.
        conditions: (T) conditions of each row.
        joined: (T−1,) whether row k leads to row k + 1: both are of the same day and have traffic and load.
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
        self.joined = (day[1:] == day[:-1]) & usable[1:] & usable[:-1]
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
