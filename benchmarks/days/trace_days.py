"""Days of traces: the user's own, or the one that comes with the package."""

from __future__ import annotations

from pathlib import Path

from marca_env.models.engine import shipped_folder
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.days import DayScenario, from_trace
from marca_env.traffic.time_series import TraceOptions

EMBEDDED_START = "2024-03-04"
"""First day of the embedded trace; all recorded results are of it."""


def embedded_trace() -> Path:
    """Return the file of traffic that comes with the package."""
    return shipped_folder("traces") / "day.csv"


def trace_day(
    trace: str | Path | None,
    scenario: Scenario,
    minutes: int,
    start: str | None = None,
    options: TraceOptions | None = None,
) -> DayScenario:
    """Read a day of a trace; ``None`` is the embedded one, from :data:`EMBEDDED_START` on."""
    if trace is None:
        return from_trace(embedded_trace(), scenario, minutes, start or EMBEDDED_START)
    return from_trace(trace, scenario, minutes, start, options)
