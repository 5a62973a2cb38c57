"""Bands behind a day that show the time windows in which the mix of requests is constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from marca_env.models.request_pool import TIME_FEATURE
from marca_env.scenario.scenario import Scenario
from marca_env.utils.units import MINUTES_PER_DAY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = "#f4f2ea"
"""Colour of every second window."""
NOTE = "bands: time windows of the day; the mix of requests, and with it load and λ, changes where one begins"


@dataclass(frozen=True)
class TimeWindows:
    """The equal windows of a day, of which each has its own mix of requests."""

    count: int
    first_minute: int = 0
    """Minute of the day at which the figure begins."""

    @classmethod
    def of(cls, scenario: Scenario, first_minute: int = 0) -> TimeWindows | None:
        """Return the windows of a scenario; ``None`` if its requests do not change through the day."""
        windows = [f for f in scenario.features if f.name == TIME_FEATURE and f.kind == "category"]
        return cls(windows[0].size, first_minute) if windows else None

    def bands(self, minutes: int) -> list[tuple[float, float]]:
        """Return begin and end of every second window, in hours since the start of a figure of ``minutes``."""
        length, bands = MINUTES_PER_DAY / self.count, []
        window = int(self.first_minute // length)
        begin = window * length - self.first_minute
        while begin < minutes:
            if window % self.count % 2 == 1:
                bands.append((max(begin, 0.0) / 60, min(begin + length, float(minutes)) / 60))
            window, begin = window + 1, begin + length
        return bands


def shade_windows(axis: Axes, windows: TimeWindows | None, minutes: int) -> None:
    """Draw a band behind every second window; nothing without windows."""
    for begin, end in windows.bands(minutes) if windows else ():
        axis.axvspan(begin, end, color=BAND, linewidth=0, zorder=0)
