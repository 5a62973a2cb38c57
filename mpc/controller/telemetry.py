"""Checks of the telemetry: missing values, repeated and skipped minutes, and the kinds of faults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY
from mpc.balancers.base import telemetry_fault

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation

FaultKind = Literal[
    "telemetry", "stale", "gap", "forecast", "infeasible", "solver", "timeout", "model", "range", "internal"
]
"""Kind of a fault:

- ``telemetry``: missing or impossible values;
- ``stale``: a minute that was observed before;
- ``gap``: minutes are missing;
- ``forecast``: the traffic forecast is missing or not finite;
- ``infeasible``: no prices satisfy the bounds and the rate limit;
- ``solver``: the solver stopped without a solution or raised;
- ``timeout``: planning exceeded its deadline;
- ``model``: predicted loads are not finite;
- ``range``: the minute is outside the range of the model's training log;
- ``internal``: any other error during planning.
"""

LOAD_WITHOUT_TRAFFIC = 0.05
"""A load of more than this many budgets without a request counts as missing traffic telemetry, not as no traffic."""
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
        FaultError: values that are missing, not numbers, negative or too large; kind ``telemetry``.
    """
    minute = minute_of_day(observation)
    try:
        arrays = {
            name: np.asarray(getattr(observation, name), dtype=np.float64)
            for name in ("load", "budget", "degradation", "prices")
        }
        qps = float(observation.qps)
    except (TypeError, ValueError, AttributeError) as error:
        raise FaultError("telemetry", f"not numbers: {error}") from None
    for name, array in arrays.items():
        if array.shape != (len(clusters),):
            message = f"{name} has shape {array.shape}, but the system model was fitted for the clusters"
            message = f"observation: {message} {', '.join(clusters)}; fit one on a log of this scenario"
            if first and array.ndim == 1:
                raise InputError(message)
            raise FaultError("telemetry", message)
    if minute is None:
        raise FaultError("telemetry", f"minute is {getattr(observation, 'minute', None)!r}; it must be a whole number")
    checked: Any = CheckedObservation(minute, qps, **arrays)
    fault = telemetry_fault(checked)
    if fault is None and qps == 0 and np.any(arrays["load"] > LOAD_WITHOUT_TRAFFIC * arrays["budget"]):
        fault = f"qps is 0 while the load is {arrays['load'].tolist()}; one of them was not measured"
    if fault is not None:
        raise FaultError("telemetry", fault)
    levels = np.nan_to_num(arrays["degradation"], nan=0.0, posinf=0.0, neginf=0.0)
    return replace(checked, degradation=np.clip(levels, 0, 1e6).astype(np.int64))


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
            FaultError: this minute or a later one was observed before; kind ``stale``.
        """
        last = self._last
        if last is None or minute is None:
            self._last = minute if last is None else (last + self.period) % MINUTES_PER_DAY
            return 0
        ahead = (minute - last) % MINUTES_PER_DAY
        if ahead == 0 or ahead > MINUTES_PER_DAY // 2:
            self._stale_count += 1
            if self._stale_count <= self.patience:
                raise FaultError("stale", f"minute {minute} again after minute {last}")
        self._last, self._stale_count = minute, 0
        return max(0, ((ahead - 1) % MINUTES_PER_DAY + 1) // self.period - 1)
