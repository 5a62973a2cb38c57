"""What the time windows of the past days showed about the errors of the system model.

The mix of requests changes from one time window of the day to the next, all at once and at known times. The model knows
the mean change. What it gets wrong is the same tomorrow: the errors after a change are remembered, and expected when
the window begins again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mpc.balancers.saved_state import to_array, to_count, to_lists
from mpc.model.conditions import window_of_day

ENTRY_MINUTES = 60
"""Minutes after the beginning of a window whose mean error is remembered. Prices are then as they will be tomorrow."""
LEAST_MINUTES = 5
"""Number of minutes that an error must be the mean of, to count as known."""


class WindowMemory:
    """Mean errors of the model's log cost per request in the first hour of each time window.

    The difference between today and the last day in the window before counts for the next window as well, because a
    change of all costs does not end with a window.

    Args:
        n_clusters: G.
        windows: W, number of equal windows of a day.
    """

    def __init__(self, n_clusters: int, windows: int) -> None:
        self.n_clusters, self.windows = n_clusters, windows
        self._learned = np.full((windows, n_clusters), np.nan)
        self.reset()

    def reset(self) -> None:
        """Forget all errors but those of :meth:`learn`."""
        self._known = self._learned.copy()  # (W,G), of the last day on which a window was seen
        self._begin_day()

    def _begin_day(self) -> None:
        self._shift = np.zeros(self.n_clusters)  # of today against the last day, in the last complete window
        self._window: int | None = None
        self._sum, self._count = np.zeros(self.n_clusters), 0

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen as values of JSON."""
        known, shift, total = to_lists(self._known), to_lists(self._shift), to_lists(self._sum)
        return {"known": known, "shift": shift, "window": self._window, "sum": total, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InputError: a damaged state, or one of another number of clusters or windows.
        """
        known = to_array(state, "known", (self.windows, self.n_clusters), np.nan)
        shift, total = (to_array(state, name, (self.n_clusters,)) for name in ("shift", "sum"))
        count, window = to_count(state, "count"), state.get("window")
        self._begin_day()
        self._window = None if window is None else to_count(state, "window") % self.windows
        self._known, self._shift, self._sum, self._count = known, shift, total, count

    def is_other(self, minutes: np.ndarray) -> np.ndarray:
        """Return whether each of ``minutes`` (N,) lies in another window than the minute observed last, (N,)."""
        if self._window is None:
            return np.zeros(np.shape(minutes), dtype=bool)
        return window_of_day(minutes, self.windows) != self._window

    def observe(self, minute: int, error: np.ndarray) -> None:
        """Add the error (G,) of the log cost per request of ``minute`` of the day, by the response alone."""
        window = int(window_of_day(np.array(minute), self.windows))
        if window != self._window:
            self._close()
            self._window = window
        if self._count < ENTRY_MINUTES and np.isfinite(error).all():
            self._sum, self._count = self._sum + error, self._count + 1

    def expected(self, minutes: np.ndarray) -> np.ndarray:
        """Return the errors (N,G) to expect in ``minutes`` (N,) of the day; NaN where nothing is known.

        Nothing is said about the window of the minute observed last: its errors are known from telemetry.
        """
        window = window_of_day(minutes, self.windows)
        shift = self._shift if self._window is None else self._today_against_before()
        return np.where((window == self._window)[:, None], np.nan, self._known[window] + shift)

    def learn(self, minutes: np.ndarray, errors: np.ndarray) -> None:
        """Remember the errors (T,G) of ``minutes`` (T,) of the day of past days, oldest first, also after a reset."""
        self._known = self._learned.copy()
        self._begin_day()
        for minute, error in zip(minutes, errors, strict=True):
            self.observe(int(minute), error)
        self._close()
        self._learned = self._known.copy()
        self._begin_day()

    def _today_against_before(self) -> np.ndarray:
        """Return the mean error of the present window less that of the day before, (G,); 0 where one is unknown."""
        if self._window is None or self._count < LEAST_MINUTES:
            return self._shift
        return np.nan_to_num(self._sum / self._count - self._known[self._window])

    def _close(self) -> None:
        """Remember the errors of the window that has ended."""
        if self._window is not None and self._count >= LEAST_MINUTES:
            self._shift = self._today_against_before()
            self._known[self._window] = self._sum / self._count
        self._sum, self._count = np.zeros(self.n_clusters), 0
