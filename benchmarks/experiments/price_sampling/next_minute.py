"""Prices of the coming minute from a sample of earlier requests, as a live system would have them.

A sample of one minute is small, and a sample of many minutes mixes time windows, in which other requests come. The
sample of the same time window takes the last minutes of the present one, and fills up with those of the day before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marca_env.scenario.scenario import Scenario
from marca_env.traffic.workload import daily_traffic
from marca_env.utils.units import MINUTES_PER_DAY, SECONDS_PER_MINUTE

PEAK, NEW_WINDOW = "next minute, at the peak", "next minute, of a new time window"
MINUTES = {PEAK: "the busiest of the day", NEW_WINDOW: "the first of a time window, the busiest of these"}


@dataclass(frozen=True)
class Sample:
    """Which earlier requests the prices are solved on."""

    share: float
    """Share of the requests of each minute."""
    minutes: int
    """Number of minutes."""
    same_window: bool = False
    """Only minutes of the time window of the coming minute; those of the day before fill up."""

    @property
    def name(self) -> str:
        """Name for tables."""
        n = "the minute" if self.minutes == 1 else f"{self.minutes} minutes"
        return f"{self.share:.1%} of {n} before" + (", same time window" if self.same_window else "")


SAMPLES = (Sample(0.01, 1), Sample(0.01, 15), Sample(0.01, 60), Sample(0.01, 60, True), Sample(1.0, 60, True))


class Day:
    """Requests of a generated day and of the day before, which has the same rates.

    Args:
        scenario: gives the rates.
        probabilities: (M,) frequency of each kind of request.
        windows: (M,) time window in which each kind comes, 0 … n_windows − 1.
        n_windows: time windows of a day.
        seed: seed of rates and requests.
    """

    def __init__(
        self, scenario: Scenario, probabilities: np.ndarray, windows: np.ndarray, n_windows: int, seed: int
    ) -> None:
        self._rng = np.random.default_rng([seed, 5])
        self.qps = daily_traffic(scenario, self._rng).qps
        self._probabilities, self._windows, self._n_windows = probabilities, windows, n_windows

    def window(self, minute: int) -> int:
        """Return the time window of a minute; negative minutes are of the day before."""
        return minute % MINUTES_PER_DAY * self._n_windows // MINUTES_PER_DAY

    def minute_of(self, task: str) -> int:
        """Return the coming minute of a task of :data:`MINUTES`."""
        if task == PEAK:
            return int(self.qps.argmax())
        firsts = [-(-MINUTES_PER_DAY * k // self._n_windows) for k in range(1, self._n_windows)]
        return max(firsts, key=lambda minute: self.qps[minute])

    def draw(self, minute: int, share: float = 1.0) -> np.ndarray:
        """Draw the requests of a minute, or a sample of them, (M,)."""
        within = np.where(self._windows == self.window(minute), self._probabilities, 0.0)
        mean = share * SECONDS_PER_MINUTE * float(self.qps[minute % MINUTES_PER_DAY])
        return self._rng.multinomial(self._rng.poisson(mean), within / within.sum())

    def sample(self, sample: Sample, minute: int) -> np.ndarray:
        """Draw a sample of the minutes before a minute, (M,)."""
        return np.sum([self.draw(k, sample.share) for k in self._minutes(sample, minute)], axis=0)

    def _minutes(self, sample: Sample, minute: int) -> list[int]:
        """Return the minutes of a sample, newest first."""
        before = [minute - 1 - k for k in range(sample.minutes)]
        if not sample.same_window:
            return before
        present = [k for k in before if self.window(k) == self.window(minute)]
        yesterday = [minute + k - MINUTES_PER_DAY for k in range(MINUTES_PER_DAY)]  # from this minute on
        fill = [k for k in yesterday if self.window(k) == self.window(minute)]
        return (present + fill)[: sample.minutes]
