"""Telemetry of a live system: one reading a period, posted to a server, with an explicit state.

A reading says what it is: a value, no traffic (nothing is wrong), missing, or stale. No value is made up: what was not
measured is missing.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, get_args

import numpy as np

from marca_env.traffic.control import ControlObservation, TelemetryState
from marca_env.utils.errors import InputError, shown, unknown_option
from marca_env.utils.files import parse_json
from marca_env.utils.units import MINUTES_PER_DAY
from marca_env.utils.validation import as_whole_number
from mpc.controller.telemetry import LOAD_WITHOUT_TRAFFIC

STATES: tuple[TelemetryState, ...] = get_args(TelemetryState)
MOST_QUEUED = 60
"""Readings that wait for the controller; more, such as after an outage of the controller, drop the oldest."""
_PARTS = ("load", "budget", "degradation", "backlog")
_FIELDS = ("minute", "state", "qps", *_PARTS)
_STEP = 0.2  # seconds after which a waiting controller looks at its stop event


@dataclass(frozen=True)
class TelemetryReading:
    """The telemetry of one period. Tuples are (G,), in the scenario's order of clusters."""

    minute: int
    """Minute of the day that was measured, 0 … 1439."""
    state: TelemetryState
    qps: float = math.nan
    """Requests per second."""
    load: tuple[float, ...] = ()
    """Core-seconds per second, as if nothing had been degraded."""
    budget: tuple[float, ...] = ()
    """Core-seconds per second; empty: the scenario's."""
    degradation: tuple[int, ...] = ()
    """Levels of degradation in force; empty: none."""
    backlog: tuple[float, ...] = ()
    """Seconds that the cluster needs for the work that waits; empty: none."""
    reason: str = ""
    """Why nothing can be used, of ``missing`` and ``stale``."""

    @property
    def is_usable(self) -> bool:
        """Whether the reading is a measurement: a value, or no traffic."""
        return self.state in ("value", "no-traffic")

    def observation(self, budgets: Sequence[float], prices: Sequence[float], minutes: int = 1) -> ControlObservation:
        """Return what a balancer gets; what cannot be used is NaN there.

        Args:
            budgets: (G,) the scenario's budgets, core-seconds per second.
            prices: (G,) prices in force in the period, currency per core-second.
            minutes: length of the period.
        """
        n = len(budgets)
        unknown = (math.nan,) * n
        load = self.load or ((0.0,) * n if self.state == "no-traffic" else unknown)
        return ControlObservation(
            minute=(self.minute + minutes) % MINUTES_PER_DAY,
            qps=self.qps if self.is_usable else math.nan,
            load=np.array(load if self.is_usable else unknown, dtype=np.float64),
            budget=np.array(self.budget or budgets, dtype=np.float64),
            degradation=np.array(self.degradation or (0,) * n, dtype=np.int64),
            backlog=np.array(self.backlog or (0.0,) * n, dtype=np.float64),
            prices=np.array(prices, dtype=np.float64),
            state=self.state,
        )


def make_reading(
    minute: int,
    qps: float | None,
    load: Sequence[float | None],
    budgets: Sequence[float],
    **others: Any,
) -> TelemetryReading:
    """Return the reading of measured values, with the state that follows from them.

    Args:
        minute: minute of the day that was measured.
        qps: requests per second; ``None`` or NaN: not measured.
        load: (G,) core-seconds per second; an entry that is ``None`` or NaN was not measured.
        budgets: (G,) core-seconds per second.
        others: other fields of :class:`TelemetryReading`.
    """

    def missing(reason: str) -> TelemetryReading:
        return TelemetryReading(minute, "missing", reason=reason, **others)

    values = [math.nan if value is None else float(value) for value in (qps, *load)]
    if any(math.isnan(value) for value in values):
        return missing("qps was not measured" if math.isnan(values[0]) else "the load of a cluster was not measured")
    if any(math.isinf(value) or value < 0 for value in values):
        return missing("a value that is negative or infinite")
    rate, loads = values[0], tuple(values[1:])
    if rate > 0:
        return TelemetryReading(minute, "value", rate, loads, **others)
    if any(used > LOAD_WITHOUT_TRAFFIC * budget for used, budget in zip(loads, budgets, strict=True)):
        return missing(f"qps is 0 while the load is {list(loads)}; one of them was not measured")
    return TelemetryReading(minute, "no-traffic", 0.0, loads, **others)


def parse_telemetry(
    data: Mapping[str, Any] | str | bytes, clusters: Sequence[str], budgets: Sequence[float]
) -> TelemetryReading:
    """Read a posted reading.

    ``{"minute": 601, "qps": 312.5, "load": {"retrieval": 5.1, "ranking": 6.0}}`` is a reading; ``budget``,
    ``degradation`` and ``backlog`` by cluster may follow. ``null`` is a value that was not measured. ``"state"`` says
    ``"no-traffic"`` or ``"missing"`` outright; without it the state follows from the values.

    Args:
        data: a mapping, or its JSON.
        clusters: names of the G clusters.
        budgets: (G,) the scenario's budgets, core-seconds per second.

    Raises:
        InputError: an unknown or missing field or cluster, or a value of another kind; names the field.
    """
    if isinstance(data, (str, bytes)):
        data = parse_json(data, "telemetry", "post one JSON object", finite=True)
    if not isinstance(data, Mapping):
        raise InputError(f'telemetry: {shown(data)}; post an object such as {{"minute": 601, "qps": 312.5, "load": …}}')
    for name in data:
        if name not in _FIELDS:
            raise InputError(f"telemetry: {unknown_option('field', name, _FIELDS)}")
    minute = as_whole_number("telemetry: minute", data.get("minute"), 0, MINUTES_PER_DAY - 1)
    state = data.get("state")
    if state is not None and state not in STATES:
        raise InputError(f"telemetry: {unknown_option('state', state, STATES)}")
    parts = {name: _by_cluster(name, data[name], clusters) for name in _PARTS if data.get(name) is not None}
    qps = None if data.get("qps") is None else _number("qps", data["qps"])
    others = _others(parts)
    if state in ("missing", "stale"):
        return TelemetryReading(minute, state, reason="said by the sender", **others)
    load = parts.get("load", [None] * len(clusters))
    if state == "no-traffic":
        if qps not in (None, 0.0):
            raise InputError(f"telemetry: qps is {qps:g}, and the state is 'no-traffic'; leave one of them out")
        known = () if any(value is None for value in load) else tuple(float(value or 0.0) for value in load)
        return TelemetryReading(minute, "no-traffic", 0.0, known, **others)
    reading = make_reading(minute, qps, load, others.get("budget") or budgets, **others)
    if state == "value" and reading.state != "value":
        raise InputError(
            f"telemetry: the state is 'value', but {reading.reason or 'qps is 0'}; give qps and the load of every "
            "cluster, or leave the state out"
        )
    return reading


def _others(parts: Mapping[str, list[float | None]]) -> dict[str, Any]:
    """Return budget, degradation and backlog as fields of a reading; an entry of ``null`` is an error."""
    others: dict[str, Any] = {}
    for name in _PARTS[1:]:
        if name not in parts:
            continue
        values = parts[name]
        if any(value is None or not math.isfinite(value) or value < 0 for value in values):
            raise InputError(f"telemetry: {name}: {values}; give finite numbers, not negative, or leave the field out")
        if name == "budget" and not all(value for value in values):
            raise InputError(f"telemetry: budget: {values}; budgets must be positive, core-seconds per second")
        if name == "degradation" and any(value != int(value or 0) for value in values):
            raise InputError(f"telemetry: degradation: {values}; levels are integers")
        others[name] = tuple(int(value or 0) if name == "degradation" else value for value in values)
    return others


def _by_cluster(name: str, value: Any, clusters: Sequence[str]) -> list[float | None]:
    """Return the entries of a field in the order of the clusters."""
    remedy = f"give an object with a number for each of {', '.join(clusters)}"
    if isinstance(value, (list, tuple)):
        if len(value) != len(clusters):
            raise InputError(f"telemetry: {name} has {len(value)} values; {remedy}")
        value = dict(zip(clusters, value, strict=True))
    if not isinstance(value, Mapping):
        raise InputError(f"telemetry: {name} is {shown(value)}; {remedy}")
    for cluster in value:
        if cluster not in clusters:
            raise InputError(f"telemetry: {name}: {unknown_option('cluster', cluster, clusters)}")
    entries = [value.get(cluster) for cluster in clusters]
    return [None if v is None else _number(f"{name}: cluster {c!r}", v) for c, v in zip(clusters, entries, strict=True)]


def _number(name: str, value: Any) -> float:
    """Return a number that is not negative; what is something else is an error of the sender."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else math.nan
    except OverflowError:
        number = math.inf
    if not is_number or math.isinf(number) or number < 0:
        raise InputError(f"telemetry: {name} is {shown(value)}; give a finite number, not negative, or null")
    return number


class TelemetrySource(Protocol):
    """Where a controller gets its readings."""

    is_pushed: bool
    """Whether readings come by themselves; another source is asked once a period."""

    def read(self, wait: float, stop: threading.Event) -> TelemetryReading | None:
        """Return the next reading.

        Args:
            wait: longest time to wait for one that is pushed, seconds.
            stop: ends the wait.

        Returns:
            The reading; ``None`` if there was none, or only a sign that it is missing without its minute.
        """
        ...


class TelemetryInbox:
    """Readings that were posted and wait for the controller, oldest first; any thread may post."""

    is_pushed = True

    def __init__(self) -> None:
        self._readings: deque[TelemetryReading] = deque(maxlen=MOST_QUEUED)
        self._arrived = threading.Condition()

    def __len__(self) -> int:
        return len(self._readings)

    def post(self, reading: TelemetryReading) -> None:
        """Add a reading."""
        with self._arrived:
            self._readings.append(reading)
            self._arrived.notify()

    def read(self, wait: float, stop: threading.Event) -> TelemetryReading | None:
        """Return the oldest reading that waits; ``None`` if none came in time, or ``stop`` was set."""
        end = time.monotonic() + wait
        with self._arrived:
            while not self._readings:
                left = end - time.monotonic()
                if left <= 0 or stop.is_set():
                    return None
                self._arrived.wait(min(left, _STEP))
            return self._readings.popleft()


def as_stale(reading: TelemetryReading, reason: str) -> TelemetryReading:
    """Return a reading whose values must not be used again."""
    return replace(reading, state="stale", reason=reason)


def to_json(reading: TelemetryReading, clusters: Sequence[str]) -> str:
    """Return a reading as the JSON that :func:`parse_telemetry` reads."""
    data: dict[str, Any] = {"minute": reading.minute, "state": reading.state}
    if reading.is_usable:
        data["qps"] = reading.qps
    for name in _PARTS:
        if values := getattr(reading, name):
            data[name] = dict(zip(clusters, values, strict=True))
    return json.dumps(data)
