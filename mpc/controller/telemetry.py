"""What a controller may believe of an observation: missing values, repeated and skipped minutes, faults by name."""

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
"""``telemetry``: missing or impossible values; ``stale``: a minute that was seen before; ``gap``: minutes are missing;
``forecast``: traffic forecast not finite, or none; ``infeasible``: no prices within bounds and rate limit; ``solver``:
it gave up or broke; ``timeout``: planning overran its deadline; ``model``: predicted loads not finite; ``range``: the
model is asked beyond what it was trained on; ``internal``: anything else that went wrong while planning."""

Source = Literal["plan", "held", "feedback"]


@dataclass(frozen=True)
class Event:
    """A minute in which the controller could not work as meant."""

    minute: int
    """Minute of the day that the prices were for; −1 if even that was unreadable."""
    kind: FaultKind
    message: str
    price: Source
    """Where the price came from: a plan of this minute or of an earlier one, the price in force, or feedback."""


class FaultError(RuntimeError):
    """Something that makes this minute's plan impossible; ``kind`` says what."""

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind


@dataclass(frozen=True)
class Reading:
    """An observation that can be used. G clusters; units as in :class:`marca_env.traffic.control.ControlObservation`."""

    minute: int
    qps: float
    load: np.ndarray
    budget: np.ndarray
    degradation: np.ndarray
    prices: np.ndarray
    """In force in the last minute; NaN where unknown."""

    def fields(self) -> dict[str, Any]:
        """By name, for an observation."""
        return {name: getattr(self, name) for name in ("minute", "qps", "load", "budget", "degradation", "prices")}


def read(observation: ControlObservation, clusters: tuple[str, ...], first: bool) -> Reading:
    """The observation as numbers of the right shapes.

    Args:
        observation: anything that has the attributes of a ``ControlObservation``.
        clusters: names of the clusters that are expected.
        first: nothing has been read before. Then arrays of another length are a mistake of the caller; later they
            count as damaged telemetry.

    Raises:
        InputError: the first observation is of other clusters.
        FaultError: values that are missing, not numbers, negative or beyond all reason; kind ``telemetry``.
    """
    minute = minute_of(observation)
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
        raise FaultError("telemetry", f"minute is {getattr(observation, 'minute', None)!r}")
    checked: Any = Reading(minute, qps, **arrays)
    fault = telemetry_fault(checked)
    if fault is None and qps <= 0:
        fault = "no traffic"
    if fault is not None:
        raise FaultError("telemetry", fault)
    levels = np.nan_to_num(arrays["degradation"], nan=0.0, posinf=0.0, neginf=0.0)
    return replace(checked, degradation=np.clip(levels, 0, 1e6).astype(np.int64))


def minute_of(observation: ControlObservation) -> int | None:
    """The minute of the day that the prices are asked for, or ``None`` where it cannot be read."""
    try:
        return int(observation.minute) % MINUTES_PER_DAY
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None


class Timeline:
    """Follows the minutes of the observations: each should be a control period after the last.

    Args:
        patience: minutes that repeated or backward stamps are called stale before the clock is taken to have been set.
        period: minutes from one observation to the next.
    """

    def __init__(self, patience: int, period: int = 1) -> None:
        self.patience, self.period = patience, period
        self.reset()

    def reset(self) -> None:
        self._last: int | None = None
        self._stale = 0

    @property
    def last(self) -> int | None:
        """The minute that was seen last."""
        return self._last

    def advance(self, minute: int | None) -> int:
        """Control periods that were skipped before this one; 0 where nothing is missing.

        Args:
            minute: of the day; ``None``: unreadable, taken to be the one after the last.

        Raises:
            FaultError: the minute, or a later one, was seen already; kind ``stale``.
        """
        last = self._last
        if last is None or minute is None:
            self._last = minute if last is None else (last + self.period) % MINUTES_PER_DAY
            return 0
        ahead = (minute - last) % MINUTES_PER_DAY
        if ahead == 0 or ahead > MINUTES_PER_DAY // 2:
            self._stale += 1
            if self._stale <= self.patience:
                raise FaultError("stale", f"minute {minute} again after minute {last}")
        self._last, self._stale = minute, 0
        return max(0, ((ahead - 1) % MINUTES_PER_DAY + 1) // self.period - 1)
