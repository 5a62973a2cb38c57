"""The loop of the controller: a reading of the telemetry comes in, prices go out, once a period.

It never stops for a fault. A reading that cannot be used, or a balancer that fails, leaves the prices on the board to
age: first they are the last good ones, then the decision servers use their static rule.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.minute_rows import day_of
from benchmarks.serving.prices import PriceBoard, PublishedPrices
from benchmarks.serving.telemetry import TelemetryReading, TelemetrySource, as_stale
from marca_env.traffic.control import Balancer
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import read_json, write_json
from marca_env.utils.units import MINUTES_PER_DAY, SECONDS_PER_MINUTE
from marca_env.utils.validation import as_number, as_whole_number
from mpc.controller.telemetry import FaultError, Timeline

log = logging.getLogger(__name__)
GRACE = 1.5
"""Periods after which a reading that is pushed counts as missing."""
PATIENCE = 3
"""Repeated minutes in a row after which the sender's clock counts as set back."""
MOST_RECORDS = 1440
"""Periods that :attr:`ControllerLoop.records` holds."""
_LONGEST_REST = MINUTES_PER_DAY / 2 * SECONDS_PER_MINUTE  # a longer one makes the minute of the day ambiguous
_FORMAT = 1
_MODELS = "refitted-model-{}"  # folder beside the state file
_REMEDY = "remove the file to begin without a past"


@dataclass(frozen=True)
class LoopRecord:
    """What the controller saw, expected and set in one period."""

    at: float
    """Unix time, seconds."""
    reading: TelemetryReading
    in_force: tuple[float, ...]
    """(G,) prices in force in the period, currency per core-second."""
    published: PublishedPrices | None
    """Prices that hold from now on; ``None`` before the first."""
    is_new: bool
    """Whether they were published in this period."""
    expected_load: tuple[float, ...]
    """(G,) load that the plan expects next, core-seconds per second; empty: the balancer does not say."""
    expected_qps: float | None
    """Forecast of the requests per second; ``None``: the balancer does not say."""
    events: tuple[str, ...]
    """Kinds of the balancer's events in this period."""
    failure: str = ""
    """Why the balancer returned no prices."""

    def row(self, clusters: Sequence[str]) -> dict[str, Any]:
        """Return the record as a row in the columns of a system log, with further ones; ``None`` was not measured."""
        reading = self.reading
        row: dict[str, Any] = {
            "day": day_of(reading.minute, self.at),
            "minute": reading.minute,
            "qps": reading.qps if reading.is_usable else None,
        }
        for name, values in (
            ("load", reading.load if reading.is_usable else ()),
            ("price", self.in_force),
            ("degradation", reading.degradation),
            ("budget", reading.budget),
            ("backlog", reading.backlog),
            ("expected_load", self.expected_load),
            ("next_price", self.published.prices if self.published else ()),
        ):
            known = values or (None,) * len(clusters)
            row |= {f"{name}_{cluster}": value for cluster, value in zip(clusters, known, strict=True)}
        row |= {"state": reading.state, "reason": reading.reason or self.failure, "events": " ".join(self.events)}
        version = 0 if self.published is None else self.published.version
        return row | {"expected_qps": self.expected_qps, "version": version, "at": self.at}


class ControllerLoop:
    """Feeds a balancer with telemetry and publishes its prices.

    Args:
        balancer: any balancer of :mod:`mpc`, or an object with its methods.
        source: where readings come from; ``None``: they are passed to :meth:`step`.
        board: where prices are published; it also names the clusters.
        period: seconds from one reading to the next.
        budgets: (G,) the scenario's budgets, core-seconds per second.
        minutes: minutes of the day from one reading to the next.
        name: the source of published prices; ``None``: the class of the balancer.
        state_file: file that is written after each period and read by :meth:`restore`; ``None``: none.
        on_record: called with each record, such as by an audit log; what it raises is logged.
        clock: Unix time, seconds.

    Attributes:
        records: the last periods, oldest first.
        readings: number of readings by state.
        events: number of the balancer's events by kind.
        failures: number of periods in which the balancer failed.

    Raises:
        InputError: budgets that are not G positive numbers, or a period that is not positive.
    """

    def __init__(
        self,
        balancer: Balancer,
        source: TelemetrySource | None,
        board: PriceBoard,
        period: float = SECONDS_PER_MINUTE,
        *,
        budgets: Sequence[float] | np.ndarray,
        minutes: int = 1,
        name: str | None = None,
        state_file: str | Path | None = None,
        on_record: Callable[[LoopRecord], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.balancer, self.source, self.board = balancer, source, board
        self.period = as_number("period", period, 1e-3)
        self.minutes = as_whole_number("minutes", minutes, 1, MINUTES_PER_DAY // 2)
        self.budgets = tuple(as_number("budgets", float(b), 1e-12) for b in budgets)
        if len(self.budgets) != len(board.clusters):
            raise InputError(f"budgets: {len(self.budgets)} numbers; give one for each of {', '.join(board.clusters)}")
        self.name = type(balancer).__name__ if name is None else name
        self.state_file = None if state_file is None else Path(state_file)
        self.on_record = on_record
        self.records: deque[LoopRecord] = deque(maxlen=MOST_RECORDS)
        self.readings: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.failures = 0
        self._clock, self._lock = clock, threading.RLock()
        self._timeline = Timeline(PATIENCE, self.minutes)
        self._last_event: Any = None
        self._measured_at: float | None = None  # time of the last usable reading
        self._given_up: int | None = None  # last minute for which no reading came

    # -- one period ------------------------------------------------------------------------------------------------
    def step(self, reading: TelemetryReading) -> PublishedPrices | None:
        """Pass a reading to the balancer and publish its prices.

        A reading of a minute that was seen before is stale. Prices after a reading that cannot be used keep the time of
        the last usable one.

        Returns:
            The prices that hold from now on; ``None`` if none was ever published.
        """
        with self._lock:
            reading = self._checked(reading)
            self.readings[reading.state] += 1
            now = self._clock()
            if reading.is_usable:
                self._measured_at = now
            latest = self.board.latest
            in_force = (0.0,) * len(self.budgets) if latest is None else latest.prices
            prices, failure = self._prices(reading, in_force)
            is_new = not failure and (reading.is_usable or (self._measured_at is not None and prices != in_force))
            if is_new:
                try:
                    latest = self.board.publish(prices, self.name, at=self._measured_at)
                except InputError as error:  # a balancer of the user may return anything
                    is_new, failure = False, one_line(error, 300)
            if failure:
                self.failures += 1
                log.error("minute %d: %s failed: %s", reading.minute, self.name, failure)
            self._record(now, reading, in_force, latest, is_new, failure)
            return latest

    def _checked(self, reading: TelemetryReading) -> TelemetryReading:
        """Return the reading, marked stale if its minute was seen before."""
        try:
            self._timeline.advance(reading.minute)
        except FaultError as error:
            if reading.minute == self._given_up:
                late = f"minute {reading.minute} counted as missing already; send it within {GRACE * self.period:g} s"
                return as_stale(reading, late)
            return as_stale(reading, str(error))
        return reading

    def _prices(self, reading: TelemetryReading, in_force: Sequence[float]) -> tuple[tuple[float, ...], str]:
        """Return the balancer's prices (G,), and why there are none."""
        try:
            answer = self.balancer.update(reading.observation(self.budgets, in_force, self.minutes))
            prices = np.asarray(answer, dtype=np.float64).ravel()
        except Exception as error:  # the loop must go on, whatever a balancer raises
            return (), f"{type(error).__name__}: {one_line(error, 300)}"
        return tuple(prices.tolist()), ""

    def _record(
        self,
        now: float,
        reading: TelemetryReading,
        in_force: tuple[float, ...],
        latest: PublishedPrices | None,
        is_new: bool,
        failure: str,
    ) -> None:
        kinds = tuple(self._new_events())
        self.events.update(kinds)
        record = LoopRecord(now, reading, in_force, latest, is_new, *self._expectations(), kinds, failure)
        self.records.append(record)
        try:
            if self.on_record is not None:
                self.on_record(record)
            if self.state_file is not None:
                self.save(self.state_file)
        except Exception as error:  # a full disk must not stop the prices
            log.error("the record of minute %d was not written: %s", reading.minute, one_line(error, 300))

    def _new_events(self) -> Iterator[str]:
        """Yield the kinds of the balancer's events since the last call."""
        events = getattr(self.balancer, "events", None) or ()
        new = []
        for event in reversed(events):
            if event is self._last_event:
                break
            new.append(event)
        if new:
            self._last_event = new[0]
        yield from (str(getattr(event, "kind", "event")) for event in reversed(new))

    def _expectations(self) -> tuple[tuple[float, ...], float | None]:
        """Return the load (G,) and the requests per second that the balancer expects, if it says so."""
        inner = getattr(self.balancer, "balancer", self.balancer)  # that of an AdaptiveBalancer
        try:
            load = np.asarray(getattr(inner, "expected_load", ()), dtype=np.float64).ravel()
            forecaster = getattr(inner, "forecaster", None)
            qps = None if forecaster is None else float(np.ravel(forecaster.forecast(1))[0])
        except Exception:  # attributes of a user's balancer may be anything
            return (), None
        return (tuple(load.tolist()) if np.isfinite(load).all() else ()), qps

    # -- the loop --------------------------------------------------------------------------------------------------
    def run(self, stop: threading.Event) -> None:
        """Read and step once a period until ``stop`` is set; then write the state.

        A period without a reading is a step with a missing one.

        Raises:
            InputError: the loop has no source.
        """
        if self.source is None:
            raise InputError("source: this loop has none to run with; give one, or call step(reading)")
        wait = GRACE * self.period
        due = time.monotonic()
        while not stop.is_set():
            reading = self._read(self.source, wait, stop)
            if stop.is_set() and reading is None:
                break
            wait = self.period if reading is None else GRACE * self.period
            self.step(self._missing() if reading is None else reading)
            if not self.source.is_pushed:
                due = max(due + self.period, time.monotonic())
                stop.wait(due - time.monotonic())
        if self.state_file is not None:
            self.save(self.state_file)

    def _read(self, source: TelemetrySource, wait: float, stop: threading.Event) -> TelemetryReading | None:
        try:
            return source.read(wait, stop)
        except Exception as error:  # a source of the user may raise anything
            log.error("telemetry: %s: %s", type(error).__name__, one_line(error, 300))
            stop.wait(0 if source.is_pushed is False else wait)
            return None

    def _missing(self) -> TelemetryReading:
        """Return the reading of a period in which none came."""
        last = self._timeline.last
        now = int(self._clock() // SECONDS_PER_MINUTE) - 1
        self._given_up = minute = (now if last is None else last + self.minutes) % MINUTES_PER_DAY
        return TelemetryReading(minute, "missing", reason="no reading came")

    # -- restarts --------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Return prices, counts and the state of the balancer, if it has one, as values of JSON."""
        with self._lock:
            save = getattr(self.balancer, "state_dict", None)
            return {
                "format": _FORMAT,
                "at": self._clock(),
                "minute": self._timeline.last,
                "measured_at": self._measured_at,
                "prices": self.board.state_dict(),
                "name": self.name,
                "balancer": save() if callable(save) else None,
                "readings": dict(self.readings),
                "events": dict(self.events),
                "failures": self.failures,
            }

    def load_state_dict(self, state: Mapping[str, Any], where: str = "controller state") -> None:
        """Continue from :meth:`state_dict`.

        The memory of another balancer, or one that is older than half a day, is not used.

        Args:
            state: values of JSON.
            where: its source, for messages.

        Raises:
            InputError: damaged values, or prices of other clusters.
        """
        if not isinstance(state, Mapping) or state.get("format") != _FORMAT:
            raise InputError(f"{where}: not a state of this version of the controller; {_REMEDY}")
        with self._lock:
            self.board.load_state_dict(state.get("prices") or {}, f"{where}: prices")
            try:
                at = as_number("at", state.get("at"))
                measured = state.get("measured_at")
                self._measured_at = None if measured is None else as_number("measured_at", measured)
                for counter, name in ((self.readings, "readings"), (self.events, "events")):
                    values = dict(state.get(name) or {})
                    counter.clear()
                    counter.update({str(k): as_whole_number(name, v) for k, v in values.items()})
                self.failures = as_whole_number("failures", state.get("failures"))
                if not 0 <= self._clock() - at <= _LONGEST_REST:
                    return
                self._timeline.reset()
                if state.get("minute") is not None:
                    self._timeline.advance(as_whole_number("minute", state["minute"], 0, MINUTES_PER_DAY - 1))
                load = getattr(self.balancer, "load_state_dict", None)
                if state.get("name") == self.name and state.get("balancer") is not None and callable(load):
                    self._load_model(state["balancer"])
                    load(state["balancer"])
            except (InputError, TypeError, ValueError) as error:
                self.balancer.reset()
                raise InputError(f"{where}: {one_line(error, 300)}; {_REMEDY}") from None

    def save(self, path: str | Path) -> None:
        """Write the state to a JSON file, atomically.

        Raises:
            WriteError: the file cannot be written.
        """
        with self._lock:
            model = self._save_model(Path(path))
            write_json(path, self.state_dict())
        for older in Path(path).parent.glob(_MODELS.format("*")) if model is not None else ():
            if older != model:
                shutil.rmtree(older, ignore_errors=True)

    def _save_model(self, path: Path) -> Path | None:
        """Write a refitted model beside the state, before the state that names it; return its folder."""
        adopted = getattr(self.balancer, "adopted", 0)
        if not isinstance(adopted, int) or adopted < 1 or not hasattr(self.balancer, "save_model"):
            return None
        folder = path.with_name(_MODELS.format(adopted))
        if not folder.exists():
            self.balancer.save_model(folder)
        return folder

    def _load_model(self, state: Mapping[str, Any]) -> None:
        """Use the refitted model of an earlier process, if its state says that there was one."""
        refit, load = state.get("refit"), getattr(self.balancer, "load_model", None)
        if self.state_file is None or load is None or not isinstance(refit, Mapping) or not refit.get("adopted"):
            return
        folder = self.state_file.with_name(_MODELS.format(refit["adopted"]))
        if not load(folder, state):
            log.warning("%s: the refit of another model than that of --model; it is not used", folder)

    def restore(self, path: str | Path | None = None) -> bool:
        """Continue from a file; return whether there was one.

        Args:
            path: the file; ``None``: ``state_file``.

        Raises:
            InputError: the file is damaged, or of other clusters.
        """
        path = self.state_file if path is None else Path(path)
        if path is None or not path.exists():
            return False
        self.load_state_dict(read_json(path, _REMEDY, finite=True), str(path))
        return True
