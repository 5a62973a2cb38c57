"""The decision service: policy, prices, mode, guard rails, metrics and audit log together. It knows no HTTP."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.audit import AuditLog
from benchmarks.serving.decider import OK, POLICY, Decider, Decision
from benchmarks.serving.guards import GuardLimits, GuardRails
from benchmarks.serving.metrics import Metrics
from benchmarks.serving.minute_rows import minute_row
from benchmarks.serving.modes import Mode, in_share, request_key
from benchmarks.serving.prices import PriceBoard, PublishedPrices
from benchmarks.serving.shared_state import CONTROLLER, TELEMETRY, TelemetrySpool
from benchmarks.serving.state_folder import StateFile
from benchmarks.serving.telemetry import TelemetryInbox, TelemetryReading, parse_telemetry
from marca_env.utils.errors import InputError, shown
from marca_env.utils.files import parse_json

MEASURED = ("late", "revenue")
"""Fields of posted telemetry that the guard rails read: share of late requests, and revenue per request."""
_MOST_RECENT = 2_000  # states of the last requests, which a new policy computes before it serves
logger = logging.getLogger("marca.serve")


class DecisionService:
    """Answers requests under the prices and the mode in force.

    Args:
        decider: decides.
        board: the published prices; one of a file shares them with other processes.
        mode: mode without a saved one.
        limits: limits of the guard rails.
        state: folder in which mode, guards and telemetry are kept and shared with other processes; ``None``: none.
        audit: the audit log; ``None``: none.
        key_field: field of a request by whose hash mode ``enforce`` chooses.
        seconds: longest time of a decision.

    Attributes:
        inbox: posted telemetry that waits for a controller of this process; ``None``: there is no controller.
        version: name of the loaded policy, changed by :meth:`swap`.

    Raises:
        InputError: the state folder is damaged, or belongs to another scenario.
    """

    def __init__(
        self,
        decider: Decider,
        board: PriceBoard,
        *,
        mode: Mode | None = None,
        limits: GuardLimits | None = None,
        state: str | Path | None = None,
        audit: AuditLog | None = None,
        key_field: str = "request_id",
        seconds: float = 0.25,
        version: str = "",
    ) -> None:
        self.decider, self.board, self.audit = decider, board, audit
        self.scenario, self.key_field, self.seconds, self.version = decider.scenario, key_field, seconds, version
        self.mode, self.guards = mode or Mode("enforce"), GuardRails(limits or GuardLimits())
        self.metrics = Metrics(self.scenario)
        self.inbox: TelemetryInbox | TelemetrySpool | None = None
        if state is not None:  # a controller in another process reads it
            path = Path(state) / TELEMETRY
            self.inbox = TelemetrySpool(path, self.scenario.cluster_names, self.scenario.budgets.tolist())
        self._controller_file = None if state is None else StateFile(Path(state) / CONTROLLER)
        self._mode_file = None if state is None else StateFile(Path(state) / "mode.json")
        self._recent: deque[tuple[float, ...]] = deque(maxlen=_MOST_RECENT)
        self.synchronise()
        self.metrics.loaded.set(time.time())

    # -- decisions -------------------------------------------------------------------------------------------------
    def decide(self, requests: Sequence[Any]) -> list[Decision]:
        """Return a decision for every request, in their order; one thread at a time may call it.

        Args:
            requests: mappings from names of features to values.
        """
        decider, mode = self.decider, self.mode
        if guards := self.guards.active:
            name, why = next(iter(guards.items()))
            return [decider.fallback(f"guard-{name}", why)] * len(requests)
        if mode.name == "static":
            return [decider.fallback(OK)] * len(requests)
        prices = self.board.current()
        if prices.state == "stale":
            status = "stale-prices" if prices.version else "no-prices"
            why = f"prices are {prices.age:.0f} s old" if prices.version else "no prices were published"
            return [decider.fallback(status, why)] * len(requests)
        keys = [request_key(r, self.key_field) for r in requests] if 0 < mode.share < 1 else [""] * len(requests)
        enforced = in_share(keys, mode.share)
        return decider.decide(requests, prices.prices, enforced=enforced, seconds=self.seconds)

    def answer(self, decisions: Sequence[Decision]) -> dict[str, Any]:
        """Return the answer to a client as values of JSON."""
        prices = self.board.current()
        return {
            "decisions": [_decision_data(decision) for decision in decisions],
            "prices_version": prices.version,
            "prices_state": prices.state,
            "mode": str(self.mode),
            "guards": list(self.guards.active),
            "policy_version": self.version,
        }

    def record(self, requests: Sequence[Any], decisions: Sequence[Decision], seconds: float) -> None:
        """Count what was answered and write the sample of the audit log.

        Args:
            requests: what the client sent.
            decisions: what it was answered.
            seconds: time that it took.
        """
        self.metrics.count(decisions, seconds)
        self._recent.extend(d.state for d in decisions if d.state)
        if self.audit is None:
            return
        for request, decision in zip(requests, decisions, strict=True):
            if self.audit.wants():
                self.audit.request(self._sampled(request, decision))

    def _sampled(self, request: Any, decision: Decision) -> dict[str, Any]:
        prices = self.board.current()
        return {
            "at": time.time(),
            "request": request,
            "state": decision.state,
            "action": decision.action,
            "applied": decision.applied,
            "status": decision.status,
            "policy_action": decision.policy_action,
            "value": decision.value,
            "costs": decision.costs,
            "prices": prices.prices,
            "prices_version": prices.version,
            "mode": str(self.mode),
            "policy_version": self.version,
        }

    # -- prices and mode ---------------------------------------------------------------------------------------------
    def set_prices(self, data: Any, source: str = "client") -> PublishedPrices:
        """Publish prices.

        Args:
            data: (G,) prices, prices by cluster, or an object with them under ``prices``.
            source: who sets them.

        Raises:
            InputError: an unknown or missing cluster, or a price that is negative or not finite.
        """
        if isinstance(data, Mapping) and "prices" in data and "prices" not in self.board.clusters:
            data, source = data["prices"], str(data.get("source", source))
        return self.board.publish(data, source)

    def set_mode(self, data: Any) -> Mode:
        """Set the mode, for all requests from now on; guard rails that act end.

        Raises:
            InputError: an unknown mode or field.
        """
        self.mode = Mode.from_data(data)
        self.guards.clear()
        self._save_mode()
        self._event("mode", f"mode {self.mode}, set by a client")
        return self.mode

    def status(self) -> dict[str, Any]:
        """Return prices and mode in force as values of JSON."""
        prices = self.board.current()
        return {
            "prices": dict(zip(self.board.clusters, prices.prices, strict=False)),
            "version": prices.version,
            "age": None if prices.version == 0 else prices.age,
            "state": prices.state,
            "source": prices.source,
        }

    def mode_status(self) -> dict[str, Any]:
        """Return the mode in force and the guard rails that act."""
        return self.mode.to_data() | {"guards": dict(self.guards.active)}

    def problems(self) -> list[str]:
        """Return why requests get the static action at present, although the mode is not ``static``."""
        found = [f"guard {name}: {why}" for name, why in self.guards.active.items()]
        if self.mode.name != "static" and (prices := self.board.current()).state == "stale":
            found.append("prices are stale" if prices.version else "no prices were published")
        return found

    # -- telemetry -------------------------------------------------------------------------------------------------
    def take_telemetry(self, body: bytes | str) -> TelemetryReading:
        """Take a posted reading: for the metrics, the guard rails, the audit log and the controller, if there is one.

        Beside the fields of :func:`~benchmarks.serving.telemetry.parse_telemetry` it may have ``late``, the share of
        late requests, and ``revenue``, the revenue per request.

        Raises:
            InputError: a field that cannot be read.
        """
        try:
            data = parse_json(body, "telemetry", "post one JSON object", finite=True)
            measured = _measured(data)
            reading = parse_telemetry(
                {k: v for k, v in data.items() if k not in MEASURED},
                self.board.clusters,
                self.scenario.budgets.tolist(),
            )
        except InputError:
            self.metrics.telemetry_refused.inc()
            raise
        self.metrics.show_reading(reading)
        if reading.is_usable and reading.load:
            budgets = reading.budget or self.scenario.budgets.tolist()
            measured["load"] = max(load / budget for load, budget in zip(reading.load, budgets, strict=True))
        self._guard(measured)
        self.log_minute(reading, self.board.current().prices, measured.get("revenue"))
        if self.inbox is not None:
            try:
                self.inbox.post(reading)
            except InputError as error:  # a full disk is not the sender's fault
                logger.error("telemetry for the controller: %s", error)
        return reading

    def _guard(self, measured: Mapping[str, float | None]) -> None:
        if self._mode_file is None:
            changes = self.guards.observe(measured)
        else:
            with self._mode_file.locked():  # readings may come to any process: count them together
                self._read_mode()
                changes = self.guards.observe(measured)
                self._mode_file.write(self._mode_data())
        for change in changes:
            self._event("guard", change)

    def log_minute(
        self,
        reading: TelemetryReading,
        in_force: Sequence[float],
        revenue: float | None = None,
        planned: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a minute to the audit log.

        Args:
            reading: what was measured.
            in_force: (G,) prices in the minute.
            revenue: revenue per request, currency.
            planned: further columns, such as what a controller expected.
        """
        if self.audit is None:
            return
        if not reading.is_usable:
            self.audit.event({"kind": "telemetry", "minute": reading.minute, "why": reading.reason or reading.state})
            return
        notes = {"mode": str(self.mode), "guards": " ".join(self.guards.active), "policy_version": self.version}
        self.audit.minute(minute_row(reading, self.board.clusters, in_force, revenue) | dict(planned or {}) | notes)

    # -- other processes, other versions ---------------------------------------------------------------------------
    def synchronise(self) -> None:
        """Take over prices, mode and guard rails that other processes changed."""
        _ = self.board.latest  # a board of a file looks at it
        if self._mode_file is not None and self._mode_file.is_changed:
            self._read_mode()

    def swap(self, decider: Decider, version: str) -> None:
        """Use another policy from the next call on; calls that run finish with the old one.

        Before that, it computes the states of the last requests, so that they need not wait.

        Args:
            decider: decides with the new policy.
            version: its name.

        Raises:
            InputError: its requests, decisions or clusters are others, so that clients would have to change.
        """
        for field in ("features", "decisions", "cluster_names"):
            if getattr(decider.scenario, field) != getattr(self.scenario, field):
                raise InputError(
                    f"policy {version}: its {field.replace('_', ' ')} differ from those served; start a server for it"
                )
        if recent := sorted(set(self._recent.copy())):
            decider.warm(np.array(recent))
        self.decider, self.version = decider, version
        self.metrics.swaps.labels("loaded").inc()
        self.metrics.loaded.set(time.time())
        self._event("policy", f"policy {version} loaded")

    def page_of_metrics(self) -> bytes:
        """Return the Prometheus page."""
        self.metrics.show_prices(self.board.current())
        self.metrics.show_mode(self.mode, self.guards.active)
        self._show_controller()
        self.metrics.remembered.set(self.decider.policy.remembered_share)
        return self.metrics.render()

    def _event(self, kind: str, message: str) -> None:
        logger.warning("%s", message)
        if self.audit is not None:
            self.audit.event({"kind": kind, "why": message})

    def _mode_data(self) -> dict[str, Any]:
        return {"mode": self.mode.to_data(), "guards": self.guards.state_dict()}

    def _save_mode(self) -> None:
        if self._mode_file is not None:
            with self._mode_file.locked():
                self._mode_file.write(self._mode_data())

    def _read_mode(self) -> None:
        assert self._mode_file is not None
        data = self._mode_file.read()
        if data is None:
            return
        if not isinstance(data, Mapping):
            raise InputError(f"{self._mode_file.path}: {shown(data)} is not a mode; remove the file")
        self.mode = Mode.from_data(data.get("mode"), str(self._mode_file.path))
        self.guards.load_state_dict(data.get("guards"), str(self._mode_file.path))

    def _show_controller(self) -> None:
        """Show what the controller of the state folder counts."""
        if self._controller_file is None or not self._controller_file.is_changed:
            return
        try:
            data = self._controller_file.read()
        except InputError as error:  # such as a file of another version
            logger.error("%s", error)
            return
        if isinstance(data, Mapping):
            self.metrics.show_controller(data.get("events"), data.get("failures"))


def _decision_data(decision: Decision) -> dict[str, Any]:
    data: dict[str, Any] = {
        "action": decision.action,
        "options": decision.options,
        "status": decision.status,
        "applied": decision.applied,
    }
    if decision.message:
        data["message"] = decision.message
    if decision.policy_action is not None and decision.applied != POLICY:
        data["policy_action"] = decision.policy_action
    return data


def _measured(data: Any) -> dict[str, float | None]:
    """Return what the guard rails read of posted telemetry."""
    if not isinstance(data, Mapping):
        raise InputError(f"telemetry: {shown(data)}; post an object")
    measured: dict[str, float | None] = {}
    for name in MEASURED:
        value = data.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(f"telemetry: {name} is {shown(value)}; give a number or null")
        measured[name] = value
    return measured
