"""Traffic of a fault drill: clients that call a server without pause, and telemetry that comes once a minute."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.serving.load_test import request_maker
from benchmarks.serving.plain_client import PlainClient
from marca_env.scenario.scenario import Scenario
from marca_env.utils.units import MINUTES_PER_DAY

Sender = Literal["value", "silent", "garbage"]
"""What the sender of the telemetry does: posts readings, posts nothing, or posts what nobody can read."""
GARBAGE: tuple[bytes, ...] = (
    b"",
    b"\x00\xff not text",
    b"[1, 2]",
    b'{"minute": "noon", "qps": 1}',
    b'{"minute": 5, "qps": NaN}',
    b'{"minute": 5, "qps": -3, "load": {"nowhere": 1}}',
    b'{"minute": 99999, "qps": 10}',
)
"""Posts that are no reading."""
_ATTEMPTS = 3  # of a call, as a load balancer tries again where a server died
_PAUSE = 0.05  # seconds before that


@dataclass
class Seen:
    """What the clients saw; counts are of requests unless their name says calls."""

    calls: int = 0
    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """Answered requests by status."""
    retried: int = 0
    """Times that a call was sent again, because the connection broke or the answer was a fault of the server (5xx)."""
    failures: Counter[str] = field(default_factory=Counter)
    """Calls that got no answer, or another status than 200, by kind."""
    states: Counter[str] = field(default_factory=Counter)
    """Calls by the state of the prices."""
    versions: Counter[str] = field(default_factory=Counter)
    """Calls by the version of the policy."""

    @property
    def unanswered(self) -> int:
        """Number of requests without a decision."""
        return self.sent - sum(self.statuses.values())

    @property
    def fallbacks(self) -> Counter[str]:
        """Requests with another status than ``ok``, by status."""
        return Counter({status: n for status, n in self.statuses.items() if status != "ok"})


class Load:
    """Clients that call /decide at a fixed pace, each on a connection of its own.

    Args:
        url: address of the server.
        scenario: scenario of the requests, in codes.
        clients: number of clients.
        rate: calls per second of each client.
        batch: requests of a call.

    Attributes:
        malformed: share of malformed requests from now on.
    """

    def __init__(self, url: str, scenario: Scenario, clients: int = 2, rate: float = 20.0, batch: int = 5) -> None:
        self.malformed = 0.0
        self._url, self._rate, self._batch = url, rate, batch
        self._lock, self._stop, self._seen = threading.Lock(), threading.Event(), Seen()
        self._idle = threading.Condition(self._lock)
        self._paused, self._busy = False, 0
        self._threads = [threading.Thread(target=self._run, args=(scenario, k)) for k in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self.resume()
        for thread in self._threads:
            thread.join()

    def pause(self) -> Seen:
        """Stop sending, wait for the answers, and return what was seen since the last pause."""
        with self._idle:
            self._paused = True
            self._idle.wait_for(lambda: self._busy == 0)
            seen, self._seen = self._seen, Seen()
            return seen

    def resume(self) -> None:
        """Send again."""
        with self._idle:
            self._paused = False
            self._idle.notify_all()

    def look(self, holds: Callable[[Seen], bool], seconds: float) -> bool:
        """Return whether something that was seen since the last pause holds within a time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self._lock:
                if holds(self._seen):
                    return True
            time.sleep(0.02)
        return False

    def totals(self) -> tuple[int, int]:
        """Return the requests that were answered since the last pause, and those of them that fell back."""
        with self._lock:
            return sum(self._seen.statuses.values()), sum(self._seen.fallbacks.values())

    def _run(self, scenario: Scenario, seed: int) -> None:
        client, makers = PlainClient(self._url, attempts=_ATTEMPTS), {}
        while not self._stop.is_set():
            with self._idle:
                self._idle.wait_for(lambda: not self._paused)
                self._busy += 1
            start, share = time.monotonic(), self.malformed
            if share not in makers:
                makers[share] = request_maker(scenario, self._batch, share, seed)
            try:
                self._call(client, makers[share]())
            finally:
                with self._idle:
                    self._busy -= 1
                    self._idle.notify_all()
            self._stop.wait(max(0.0, 1.0 / self._rate - (time.monotonic() - start)))
        client.close()

    def _call(self, client: PlainClient, body: bytes) -> None:
        before = client.retries
        try:
            status, answer = client.call("POST", "/decide", body)
            for _ in range(_ATTEMPTS - 1):
                if status < 500:
                    break
                client.retries += 1
                time.sleep(_PAUSE)
                status, answer = client.call("POST", "/decide", body)
            failure = "" if status == 200 else str(status)
        except (OSError, http.client.HTTPException) as error:
            failure, answer = type(error).__name__, None
        with self._lock:
            seen = self._seen
            seen.calls, seen.sent = seen.calls + 1, seen.sent + self._batch
            seen.retried += client.retries - before
            if failure:
                seen.failures[failure] += 1
                return
            seen.statuses.update(decision["status"] for decision in answer["decisions"])
            seen.states[answer["prices_state"]] += 1
            seen.versions[answer["policy_version"]] += 1


class TelemetrySender:
    """Posts a reading once a simulated minute: a load that swings about the budget.

    Args:
        url: address of the server.
        scenario: names clusters and budgets.
        minute: seconds of a simulated minute.

    Attributes:
        does: what the sender does from now on.
        posted: number of posts by the status of their answer.
    """

    def __init__(self, url: str, scenario: Scenario, minute: float) -> None:
        self.does: Sender = "value"
        self.posted: Counter[str] = Counter()
        self._url, self._scenario, self._seconds = url, scenario, minute
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> TelemetrySender:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def take_counts(self) -> Counter[str]:
        """Return the posts by status since the last call."""
        with self._lock:
            posted, self.posted = self.posted, Counter()
            return posted

    def _run(self) -> None:
        client, minute = PlainClient(self._url, attempts=_ATTEMPTS), 0
        while not self._stop.is_set():
            with self._lock:
                if (body := self._body(minute)) is not None:
                    try:
                        self.posted[str(client.call("POST", "/telemetry", body)[0])] += 1
                    except (OSError, http.client.HTTPException) as error:
                        self.posted[type(error).__name__] += 1
            minute += 1
            self._stop.wait(self._seconds)
        client.close()

    def _body(self, minute: int) -> bytes | None:
        if self.does == "silent":
            return None
        if self.does == "garbage":
            return GARBAGE[minute % len(GARBAGE)]
        return json.dumps(reading_of(self._scenario, minute)).encode()


def reading_of(scenario: Scenario, minute: int, swing: Sequence[float] = (0.9, 1.05, 0.97, 1.02)) -> dict[str, Any]:
    """Return a reading whose load is a swing about the budget."""
    share = swing[minute % len(swing)]
    load = {name: share * float(b) for name, b in zip(scenario.cluster_names, scenario.budgets, strict=True)}
    return {"minute": minute % MINUTES_PER_DAY, "qps": scenario.peak_qps / 2, "load": load}
