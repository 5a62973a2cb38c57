"""A system log as arrays, and which of its rows lead to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpc.model.conditions import Conditions

if TYPE_CHECKING:
    import pandas as pd


class Transitions:
    """Columns of a system log of T rows and G clusters.

    Attributes:
        load: (T,G) core-seconds per second; ``prices`` (T,G); ``conditions`` (T).
        joined: (T−1,) whether row k leads to row k + 1: the same day, with traffic and load in both.
        starts: the rows that lead to their successor.
        calm: (T,) no degradation at row k nor at k + 1.
    """

    def __init__(self, log: pd.DataFrame, clusters: Sequence[str]) -> None:
        def of(name: str) -> np.ndarray:
            return log[[f"{name}_{c}" for c in clusters]].to_numpy(dtype=np.float64)  # (T,G)

        self.load, self.prices = of("load"), of("price")
        self.conditions = Conditions(
            qps=log["qps"].to_numpy(dtype=np.float64),
            minute=log["minute"].to_numpy(dtype=np.float64),
            degradation=of("degradation"),
        )
        day = log["day"].to_numpy()
        usable = (self.conditions.qps > 0) & (self.load > 0).all(axis=1)
        self.joined = (day[1:] == day[:-1]) & usable[1:] & usable[:-1]
        self.starts = np.flatnonzero(self.joined)
        calm = (self.conditions.degradation == 0).all(axis=1)
        self.calm = np.append(calm[1:] & calm[:-1], False)

    def mostly_calm(self, rows: np.ndarray) -> np.ndarray:
        """The rows without degradation, where they are at least half."""
        calm = rows[self.calm[rows]]
        return calm if 2 * len(calm) >= len(rows) else rows

    def costs(self, rows: np.ndarray) -> np.ndarray:
        """Core-seconds per request, (len(rows),G)."""
        return self.load[rows] / self.conditions.qps[rows, None]

    def chains(self, rows: np.ndarray, steps: int) -> np.ndarray:
        """Those of ``rows`` that lead on for ``steps`` rows."""
        rows = rows[rows + steps < len(self.load)]
        return np.array([k for k in rows if self.joined[k : k + steps].all()], dtype=np.int64)
