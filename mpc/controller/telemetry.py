"""Checks of the telemetry: what state a reading is in, repeated and skipped minutes, and the kinds of faults.

A reading is a value, no traffic, missing or stale (:data:`marca_env.traffic.control.TelemetryState`). The first two are
measurements, and no fault. A reading with values that nothing can have measured is damaged: kind ``telemetry``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY
from mpc.balancers.base import telemetry_fault

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation, TelemetryState

FaultKind = Literal[
    "telemetry", "missing", "stale", "gap", "forecast", "infeasible", "solver", "timeout", "model", "range", "internal"
]
"""Kind of a fault:

- ``telemetry``: values that nothing can have measured, such as a negative load or text;
- ``missing``: traffic, load, budget or the minute was not measured;
- ``stale``: a minute that was observed before, or old values under a new minute;
- ``gap``: minutes without an observation;
- ``forecast``: the traffic forecast is missing or not finite;
- ``infeasible``: no prices satisfy the bounds and the rate limit;
- ``solver``: the solver stopped without a solution or raised;
- ``timeout``: planning exceeded its deadline;
- ``model``: predicted loads are not finite;
- ``range``: the minute is outside the range of the model's training log;
- ``internal``: any other error during planning.
"""

LOAD_WITHOUT_TRAFFIC = 0.05
"""A load of more than this many budgets without a request counts as missing, not as no traffic, unless the observation
says ``no-traffic``."""
PriceSource = Literal["plan", "held", "feedback"]
"""Source of the prices of a minute: a plan of this or an earlier minute, the prices in force, or feedback."""


@dataclass(frozen=True)
class Event:
    """A minute in which the controller could not work as intended."""

    minute: int
    """Minute of the day for which the prices were; −1 if it was unreadable."""
    kind: FaultKind
    message: str
    price: PriceSource


class FaultError(RuntimeError):
    """A fault that prevents a plan in this minute.

    Args:
        kind: the kind of the fault.
        message: the details.
    """

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind


class RepeatedMinuteError(FaultError):
    """A minute that was observed before; nothing has changed since."""

    def __init__(self, message: str) -> None:
        super().__init__("stale", message)


@dataclass(frozen=True)
class CheckedObservation:
    """An observation with valid values, in the units of :class:`marca_env.traffic.control.ControlObservation`."""

    minute: int
    qps: float
    load: np.ndarray
    """(G,)."""
    budget: np.ndarray
    """(G,)."""
    degradation: np.ndarray
    """(G,)."""
    prices: np.ndarray
    """(G,) in force in the last minute; NaN where unknown."""

    @property
    def state(self) -> TelemetryState:
        """Whether there was traffic: ``value`` or ``no-traffic``."""
        return "value" if self.qps > 0 else "no-traffic"

    def fields(self) -> dict[str, Any]:
        """Return the values by name, for ``dataclasses.replace`` of a ``ControlObservation``."""
        return {name: getattr(self, name) for name in ("minute", "qps", "load", "budget", "degradation", "prices")}


def check_observation(observation: ControlObservation, clusters: tuple[str, ...], first: bool) -> CheckedObservation:
    """Return the observation as numbers of the right shapes.

    Args:
        observation: an object with the attributes of a ``ControlObservation``.
        clusters: names of the expected clusters.
        first: whether this is the first observation. Then arrays of another length are an error of the caller; later
            they count as damaged telemetry.

    Raises:
        InputError: the first observation has another number of clusters.
        FaultError: kind ``missing``: a value was not measured, or the observation says so; ``stale``: it says so;
            ``telemetry``: values that are not numbers, negative or too large, or that contradict each other.
    """
    said = getattr(observation, "state", None)
    if said in ("missing", "stale"):
        raise FaultError(said, "the observation says so")
    is_quiet = said == "no-traffic"
    minute, not_measured = minute_of_day(observation), _not_measured(observation, is_quiet)
    if not_measured:
        raise FaultError("missing", f"{' and '.join(not_measured)} was not measured")
    try:
        arrays = {
            name: np.asarray(getattr(observation, name), dtype=np.float64)
            for name in ("load", "budget", "degradation", "prices")
        }
        qps = 0.0 if is_quiet and observation.qps is None else float(observation.qps)
    except (TypeError, ValueError, AttributeError) as error:
        raise FaultError("telemetry", f"not numbers: {error}") from None
    if is_quiet:
        arrays["load"], qps = np.nan_to_num(arrays["load"], nan=0.0, posinf=np.inf), 0.0 if np.isnan(qps) else qps
    for name, array in arrays.items():
        if array.shape != (len(clusters),):
            message = f"{name} has shape {array.shape}, but the system model was fitted for the clusters"
            message = f"observation: {message} {', '.join(clusters)}; fit one on a log of this scenario"
            if first and array.ndim == 1:
                raise InputError(message)
            raise FaultError("telemetry", message)
    if minute is None:
        raise FaultError("missing", f"minute is {getattr(observation, 'minute', None)!r}; it must be a whole number")
    checked: Any = CheckedObservation(minute, qps, **arrays)
    fault = telemetry_fault(checked)
    if fault is None and is_quiet and qps > 0:
        fault = f"qps is {qps:g}, and the observation says that there was no traffic"
    if fault is not None:
        raise FaultError("telemetry", fault)
    if qps == 0 and not is_quiet and np.any(arrays["load"] > LOAD_WITHOUT_TRAFFIC * arrays["budget"]):
        raise FaultError("missing", f"qps is 0 while the load is {arrays['load'].tolist()}; one was not measured")
    levels = np.nan_to_num(arrays["degradation"], nan=0.0, posinf=0.0, neginf=0.0)
    return replace(checked, degradation=np.clip(levels, 0, 1e6).astype(np.int64))


def _not_measured(observation: ControlObservation, is_quiet: bool) -> list[str]:
    """Return the names of the values that are ``None`` or NaN; of a quiet minute only the budget has to be known."""
    names = []
    for name in ("budget",) if is_quiet else ("qps", "load", "budget"):
        value = getattr(observation, name, None)
        try:
            is_missing = value is None or bool(np.isnan(np.asarray(value, dtype=np.float64)).any())
        except (TypeError, ValueError):
            continue  # no numbers at all: damaged
        if is_missing:
            names.append(name)
    return names


def minute_of_day(observation: ControlObservation) -> int | None:
    """Return the minute of the day for which prices are requested, or ``None`` if it is unreadable."""
    try:
        return int(observation.minute) % MINUTES_PER_DAY
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None


class Timeline:
    """Checks the minutes of the observations: each should be one control period after the last.

    Args:
        patience: number of repeated or earlier minutes that count as stale; after them the clock counts as reset.
        period: minutes from one observation to the next.
    """

    def __init__(self, patience: int, period: int = 1) -> None:
        self.patience, self.period = patience, period
        self.reset()

    def reset(self) -> None:
        """Forget the last minute."""
        self._last: int | None = None
        self._stale_count = 0

    @property
    def last(self) -> int | None:
        """The minute of the last observation; ``None`` before the first."""
        return self._last

    def advance(self, minute: int | None) -> int:
        """Move on to a minute and return the number of control periods skipped before it, usually 0.

        Args:
            minute: minute of the day; ``None``: unreadable, assumed to be one period after the last.

        Raises:
            RepeatedMinuteError: this minute or a later one was observed before.
        """
        last = self._last
        if last is None or minute is None:
            self._last = minute if last is None else (last + self.period) % MINUTES_PER_DAY
            return 0
        ahead = (minute - last) % MINUTES_PER_DAY
        if ahead == 0 or ahead > MINUTES_PER_DAY // 2:
            self._stale_count += 1
            if self._stale_count <= self.patience:
                raise RepeatedMinuteError(f"minute {minute} again after minute {last}")
        self._last, self._stale_count = minute, 0
        return max(0, ((ahead - 1) % MINUTES_PER_DAY + 1) // self.period - 1)
