"""Prometheus metrics of a decision server."""

from __future__ import annotations

import os
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from benchmarks.serving.decider import FALLBACK_REASONS, OK, Decision
from benchmarks.serving.guards import GUARDS
from benchmarks.serving.modes import MODES, Mode
from benchmarks.serving.prices import PriceStatus
from benchmarks.serving.static_rule import option_name
from benchmarks.serving.telemetry import STATES, TelemetryReading
from marca_env.scenario.scenario import Scenario

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_PRICE_STATES = ("fresh", "last-good", "stale")
SWAP_RESULTS = ("loaded", "refused")
"""What becomes of a new version of the policy."""
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder in which several processes add up their metrics."""


class Metrics:
    """The metrics of one server; all names begin with ``marca_``.

    Args:
        scenario: names clusters, decisions and options.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.registry = CollectorRegistry()
        self.scenario, self._clusters = scenario, scenario.cluster_names
        self.requests = self._counter("requests", "Requests by status: ok, or the reason of the fallback", "status")
        self.fallbacks = self._counter("fallbacks", "Requests that got the static action, by reason", "reason")
        self.applied = self._counter("applied", "Requests by the source of the applied action", "source")
        self.decisions = self._counter("decisions", "Requests by applied option", "decision", "option")
        self.calls = self._counter("calls", "HTTP calls of /decide by status code", "code")
        self.value = self._counter("expected_revenue", "Revenue that the policy expects of applied actions, currency")
        self.cost = self._counter("expected_core_seconds", "Expected cost of applied actions", "cluster")
        self.latency = Histogram(
            "marca_decide_seconds", "Time of a call of /decide", registry=self.registry, buckets=_SECONDS
        )
        self.price = self._gauge("price", "Price of computation in force, currency per core-second", "cluster")
        self.price_version = self._gauge("price_version", "Version of the prices; 0: none")
        self.price_age = self._gauge("price_age_seconds", "Age of the prices; infinite: none")
        self.price_state = self._gauge("price_state", "1 for the state of the prices", "state")
        self.load = self._gauge("load", "Load of the last reading, core-seconds per second", "cluster")
        self.budget = self._gauge("budget", "Budget, core-seconds per second", "cluster")
        self.qps = self._gauge("qps", "Requests per second of the last reading")
        self.utilisation = self._gauge("utilisation", "min(load, budget) / budget; its mean is μ", "cluster")
        self.over = self._gauge("over_utilisation", "(max(load, budget) - budget) / budget; its mean is ν", "cluster")
        self.readings = self._counter("telemetry_readings", "Readings of the telemetry by state", "state")
        self.telemetry_refused = self._counter("telemetry_refused", "Posts of telemetry that could not be read")
        self.events = self._gauge("controller_events", "Events of the controller by kind, since it began", "kind")
        self.failures = self._gauge("controller_failures", "Periods in which the controller's balancer failed")
        self.mode = self._gauge("mode", "1 for the mode in force", "mode")
        self.enforced = self._gauge("enforced_share", "Share of the requests that get the policy's action")
        self.guard = self._gauge("guard_active", "1 while a guard rail holds the static rule", "guard")
        self.remembered = self._gauge("remembered_share", "Share of the states whose values are cached")
        self.swaps = self._counter("policy_swaps", "Versions of the policy that were loaded or refused", "result")
        self.loaded = self._gauge("policy_loaded_timestamp_seconds", "Unix time at which the policy was loaded")
        self._by_action: dict[tuple[int, ...], tuple[Counter, ...]] = {}
        self._costs = [self.cost.labels(cluster) for cluster in self._clusters]
        for cluster, budget in zip(self._clusters, scenario.budgets, strict=True):
            self.budget.labels(cluster).set(float(budget))
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Show counters before their first event: Prometheus sees no growth in one that begins at 1."""
        for state in STATES:
            self.readings.labels(state)
        for reason in FALLBACK_REASONS:
            self.fallbacks.labels(reason)
        for result in SWAP_RESULTS:
            self.swaps.labels(result)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"marca_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"marca_{name}", text, labels, registry=self.registry, multiprocess_mode="mostrecent")

    def count(self, decisions: Sequence[Decision], seconds: float) -> None:
        """Count the answers of one call.

        Args:
            decisions: what was answered.
            seconds: time that it took.
        """
        self.latency.observe(seconds)
        for status, n in Counts(d.status for d in decisions).items():
            self.requests.labels(status).inc(n)
            if status != OK:
                self.fallbacks.labels(status).inc(n)
        for source, n in Counts(d.applied for d in decisions).items():
            self.applied.labels(source).inc(n)
        for action, n in Counts(d.action for d in decisions).items():
            for counter in self._options_of(action):
                counter.inc(n)
        self.value.inc(max(0.0, sum(d.value for d in decisions)))
        for g, counter in enumerate(self._costs):
            counter.inc(max(0.0, sum(d.costs[g] for d in decisions)))

    def _options_of(self, action: tuple[int, ...]) -> tuple[Counter, ...]:
        """Return the counters of an action's options; looking them up by their labels takes longer than counting."""
        if action not in self._by_action:
            pairs = zip(self.scenario.decisions, action, strict=True)
            counters = tuple(self.decisions.labels(d.name, option_name(d.options[k])) for d, k in pairs)
            self._by_action[action] = counters
        return self._by_action[action]

    def show_prices(self, status: PriceStatus) -> None:
        """Show the prices in force."""
        for cluster, price in zip(self._clusters, status.prices, strict=False):
            self.price.labels(cluster).set(price)
        self.price_version.set(status.version)
        self.price_age.set(status.age)
        for state in _PRICE_STATES:
            self.price_state.labels(state).set(state == status.state)

    def show_mode(self, mode: Mode, guards: Mapping[str, str]) -> None:
        """Show the mode and the guard rails that act."""
        for name in MODES:
            self.mode.labels(name).set(name == mode.name)
        self.enforced.set(0.0 if guards else mode.share)
        for guard in GUARDS:
            self.guard.labels(guard).set(guard in guards)

    def show_controller(self, events: Any, failures: Any) -> None:
        """Show what a controller counts: events by kind, and failures; what cannot be read is left out."""
        for kind, count in events.items() if isinstance(events, Mapping) else ():
            if isinstance(count, int):
                self.events.labels(str(kind)).set(count)
        if isinstance(failures, int):
            self.failures.set(failures)

    def show_reading(self, reading: TelemetryReading) -> None:
        """Show a reading of the telemetry."""
        self.readings.labels(reading.state).inc()
        if not reading.is_usable:
            return
        self.qps.set(reading.qps)
        budgets = reading.budget or tuple(float(b) for b in self.scenario.budgets)
        loads = reading.load or (0.0,) * len(budgets)
        for cluster, load, budget in zip(self._clusters, loads, budgets, strict=True):
            self.load.labels(cluster).set(load)
            self.budget.labels(cluster).set(budget)
            self.utilisation.labels(cluster).set(min(load, budget) / budget)
            self.over.labels(cluster).set(max(0.0, load - budget) / budget)

    def render(self) -> bytes:
        """Return the page of metrics; of all processes, if there are several."""
        if os.environ.get(MULTIPROCESS):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
            return generate_latest(registry)
        return generate_latest(self.registry)
