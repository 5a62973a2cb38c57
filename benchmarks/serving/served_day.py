"""A simulated day whose decisions come from a decision server over HTTP, and the same day in one process.

Both run in :func:`marca_env.traffic.day_simulator.replay`, which realises the outcomes, so that they differ in who
decides and who sets the prices alone. A client cannot send the hundred million requests of a day: each request that it
sends stands for ``each`` equal ones. Shapes: T minutes, M kinds of request, J joint actions, G clusters.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.serving.plain_client import PlainClient
from benchmarks.serving.telemetry import TelemetryReading, to_json
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.control import ControlObservation
from marca_env.traffic.policies import PricedPolicy
from marca_env.traffic.simulated_system import sample_arrivals
from marca_env.traffic.workload import Traffic
from marca_env.utils.units import MINUTES_PER_DAY, SECONDS_PER_MINUTE

MEASURED, METRICS = "measured", "metrics"
TELEMETRY = (MEASURED, METRICS)
"""Where the load of the telemetry comes from: ``measured`` on the machines of the environment; ``metrics``: what the
server's own counter of expected core-seconds says."""


@dataclass(frozen=True)
class ScaledDay:
    """Requests of a day, thinned out."""

    counts: np.ndarray
    """(T,M) requests that are sent in each minute."""
    each: int
    """Number of equal requests that each of them stands for."""

    @classmethod
    def draw(cls, pool: RequestPool, traffic: Traffic, each: int, seed: int) -> ScaledDay:
        """Draw the requests of a day at ``1 / each`` of its rate."""
        rng = np.random.default_rng([seed, 3])
        counts = [
            sample_arrivals(rng, pool, float(qps) / each, SECONDS_PER_MINUTE, traffic.minute_of_day(k))
            for k, qps in enumerate(traffic.qps)
        ]
        return cls(np.stack(counts), each)

    @property
    def arrivals(self) -> np.ndarray:
        """(T,M) requests of the day that they stand for."""
        return self.counts * self.each


class InProcessPolicy(PricedPolicy):
    """The policy of a server and the balancer of a controller, in this process.

    Args:
        day: requests of the day, which the expected load of the telemetry needs.
        telemetry: one of :data:`TELEMETRY`.
        arguments: see :class:`~marca_env.traffic.policies.PricedPolicy`.
    """

    def __init__(self, day: ScaledDay, telemetry: str, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._day, self._telemetry = day, telemetry
        self._minute, self._expected = 0, np.empty(0)

    def choose(self, observation: ControlObservation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the joint action of each of ``rows`` and the prices; see the base class."""
        if self._telemetry == METRICS and self._minute > 0:
            observation = replace(observation, load=self._expected)
        actions, prices = super().choose(observation, rows)
        counts, columns = self._day.arrivals[self._minute][rows], np.arange(len(rows))
        self._expected = counts @ self.table.costs[rows][columns, actions].astype(np.float64) / SECONDS_PER_MINUTE
        self._minute += 1
        return actions, prices


@dataclass
class ClientCounts:
    """What the client saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Requests by status."""
    unanswered: int = 0
    """Requests without a decision."""
    divided: int = 0
    """Requests whose action was not that of most equal requests of the minute, such as after a fallback."""
    other_prices: int = 0
    """Requests that were decided under another version of the prices than the newest."""


class ServedPolicy:
    """The policy of a server: telemetry goes out once a minute, then every request of the minute over HTTP.

    Args:
        client: calls the server, beside which a controller runs.
        in_process: says from which prices the day starts.
        pool: kinds of request.
        day: requests to send.
        telemetry: one of :data:`TELEMETRY`.
        batch: requests of a call.
        seed: seed of the order of the requests.

    Attributes:
        counts: what the client saw.
    """

    name = "served"

    def __init__(
        self,
        client: PlainClient,
        in_process: PricedPolicy,
        pool: RequestPool,
        day: ScaledDay,
        telemetry: str = METRICS,
        batch: int = 100,
        seed: int = 0,
    ) -> None:
        self._client, self._start, self._day = client, in_process, day
        self._scenario, self._telemetry, self._batch = pool.scenario, telemetry, batch
        self._requests = requests_of(pool.scenario, pool.states)
        self._rng, self._minute, self._used = np.random.default_rng([seed, 4]), 0, np.empty(0)
        self._version = 0
        self.counts = ClientCounts()

    def begin(self, budgets: np.ndarray, qps: float, chances: np.ndarray) -> np.ndarray:
        """Publish the prices from which the day starts and return them."""
        prices = self._start.begin(budgets, qps, chances)
        names = self._scenario.cluster_names
        published = self._client.ask("PUT", "/prices", dict(zip(names, prices.tolist(), strict=True)))
        self._version = int(published["version"])
        self._used = self._core_seconds()
        return prices

    def choose(self, observation: ControlObservation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Post the telemetry of the last minute, wait for the controller, and let the server decide the next one."""
        self._client.ask("POST", "/telemetry", self._reading(observation))
        prices = self._client.wait_for_version(self._version + 1)
        self._version = int(prices["version"])
        actions = self._decide(rows)
        self._minute += 1
        return actions, np.array([prices["prices"][name] for name in self._scenario.cluster_names])

    def _reading(self, observation: ControlObservation) -> bytes:
        load = observation.load
        if self._telemetry == METRICS and self._minute > 0:
            used = self._core_seconds()
            load = self._day.each * (used - self._used) / SECONDS_PER_MINUTE
            self._used = used
        reading = TelemetryReading(
            minute=(observation.minute - 1) % MINUTES_PER_DAY,
            state="value" if observation.qps > 0 else "no-traffic",
            qps=float(observation.qps),
            load=tuple(load.tolist()),
            budget=tuple(observation.budget.tolist()),
            degradation=tuple(int(level) for level in observation.degradation),
            backlog=tuple(observation.backlog.tolist()),
        )
        return to_json(reading, self._scenario.cluster_names).encode()

    def _core_seconds(self) -> np.ndarray:
        """Return what the server's applied actions were expected to cost so far, (G,) core-seconds."""
        samples, names = self._client.metrics(), self._scenario.cluster_names
        return np.array([samples.get(("marca_expected_core_seconds_total", name), 0.0) for name in names])

    def _decide(self, rows: np.ndarray) -> np.ndarray:
        """Send the requests of the minute and return the joint action of each of ``rows``."""
        scenario, counts = self._scenario, self._day.counts[self._minute]
        votes = np.zeros((len(counts), scenario.n_joint_actions), dtype=np.int32)
        kinds = self._rng.permutation(np.repeat(np.arange(len(counts)), counts))
        for start in range(0, len(kinds), self._batch):
            part = kinds[start : start + self._batch]
            answer = self._client.decide([self._requests[kind] for kind in part])
            decisions = answer["decisions"]
            self.counts.unanswered += len(part) - len(decisions)
            self.counts.statuses.update(decision["status"] for decision in decisions)
            self.counts.other_prices += len(part) * (answer["prices_version"] != self._version)
            actions = scenario.joint_index(np.array([decision["action"] for decision in decisions]))
            np.add.at(votes, (part[: len(decisions)], actions), 1)
        self.counts.divided += int(votes.sum() - votes.max(axis=1).sum())
        return votes[rows].argmax(axis=1)


def requests_of(scenario: Scenario, states: np.ndarray) -> list[dict[str, Any]]:
    """Return states (M,W) as requests in codes, without hidden features."""
    columns = [(k, scenario.state_columns[k]) for k in scenario.observable_columns]
    return [{name: state[k] for k, name in columns} for state in states.tolist()]
