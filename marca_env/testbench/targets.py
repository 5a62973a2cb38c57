"""Targets of the TestBench besides the live cascade: a Python callable, or an HTTP service."""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Protocol
from urllib.error import URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import urlopen

import numpy as np
import psutil

from marca_env.testbench.service import Bucket, Replay, Workload, cpu_seconds, growth_of
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.validation import as_whole_number, shown

MAX_PID, MAX_CORES, MAX_CONNECTIONS = 2**31 - 1, 100_000, 10_000
CPU_METRIC = "process_cpu_seconds_total"
"""Counter of CPU-seconds that Prometheus client libraries export."""
_TIMEOUT = 10.0
_WARM_UP, _TIMED = 4, 16
_WARM_UP_SECONDS = 0.3


class Target(Protocol):
    """Running service that the TestBench drives; a context manager."""

    buckets: list[Bucket]
    cores: int
    """Cores of each machine."""

    def prepare(self, workload: Workload) -> float:
        """Warm up for a workload; return the approximate CPU seconds of one request."""
        ...

    def replay(self, due: np.ndarray, patience: float) -> Replay:
        """Send request k at ``due[k]`` seconds (n,); drop the rest after ``patience`` seconds of lateness."""
        ...

    def __enter__(self) -> Target: ...

    def __exit__(self, *error: object) -> None: ...


# -- a Python callable -------------------------------------------------------------------------------------------
class FunctionService:
    """Function of one argument as a service: ``TestBench(service=partial(FunctionService, function, buckets))``.

    The workload of a bucket is the argument, or a callable that returns the argument of the k-th request.
    """

    def __init__(self, function: Callable[[Any], object], buckets: Sequence[Bucket]) -> None:
        self.function, self._buckets = function, list(buckets)

    def buckets(self) -> list[Bucket]:
        """Return the buckets."""
        return self._buckets

    def handler(self, workload: Workload) -> Callable[[int], object]:
        """Return a function that serves the k-th request of a workload."""
        if callable(workload):
            return lambda k: self.function(workload(k))
        argument = json.loads(workload) if isinstance(workload, str) else workload
        return lambda _: self.function(argument)


# -- HTTP --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class HttpRequest:
    """HTTP request; ``{k}`` in path and body stands for its number."""

    path: str = "/"
    method: str = "GET"
    body: str | None = None
    content_type: str = "application/json"


class HttpTarget:
    """Running HTTP service; requests are sent on time over persistent connections, one thread each.

    Args:
        url: scheme, host and port.
        buckets: buckets to measure; a workload is an :class:`HttpRequest`.
        cpu: returns the CPU-seconds that the service has used, e.g. :func:`process_clock` or :func:`metric_clock`.
        cores: cores of each machine.
        connections: maximum of simultaneous requests.

    Raises:
        InputError: the URL is not http or https, or a number is below 1.
    """

    def __init__(
        self, url: str, buckets: Sequence[Bucket], cpu: Callable[[], float], cores: int = 1, connections: int = 8
    ) -> None:
        as_whole_number("connections", connections, 1, MAX_CONNECTIONS)
        as_whole_number("cores", cores, 1, MAX_CORES)
        parts = check_address(url)
        self.url, self.buckets, self.cores = url.rstrip("/"), list(buckets), cores
        self._cpu, self._connections = cpu, connections
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._address = str(parts.hostname), parts.port
        self._workload = HttpRequest()

    def prepare(self, workload: Workload) -> float:
        """Warm up; return the approximate CPU seconds of one request (at most its latency)."""
        assert isinstance(workload, HttpRequest)
        self._workload = workload
        connection = self._connect()
        for k in range(_WARM_UP):
            self._send(connection, k)
        before, start, sent = self._cpu(), time.monotonic(), 0
        while sent < _TIMED and time.monotonic() - start < _WARM_UP_SECONDS:
            self._send(connection, sent)
            sent += 1
        latency, used = (time.monotonic() - start) / sent, (self._cpu() - before) / sent
        connection.close()
        return used if used > 0 else latency  # a coarse clock may not have moved

    def replay(self, due: np.ndarray, patience: float) -> Replay:
        """Send request k at ``due[k]`` seconds (n,); drop the rest after ``patience`` seconds of lateness."""
        waiting: queue.SimpleQueue[tuple[int, float] | None] = queue.SimpleQueue()
        lateness: dict[int, float] = {}
        times: dict[int, float] = {}
        failures: list[InputError] = []
        before, start = self._cpu(), time.monotonic()

        def work() -> None:
            try:
                connection = self._connect()
                while (job := waiting.get()) is not None:
                    k, moment = job
                    begin = time.monotonic()
                    if begin - moment <= patience and not failures:
                        lateness[k] = begin - moment
                        self._send(connection, k)
                        times[k] = time.monotonic() - begin
                connection.close()
            except InputError as error:
                failures.append(error)

        workers = [threading.Thread(target=work, daemon=True) for _ in range(self._connections)]
        for worker in workers:
            worker.start()
        for k, moment in enumerate(start + due):
            time.sleep(max(0.0, moment - time.monotonic()))
            waiting.put((k, moment))
        for _ in workers:
            waiting.put(None)
        for worker in workers:
            worker.join()
        if failures:
            raise failures[0]
        seconds, cpu = time.monotonic() - start, self._cpu() - before
        late = np.array([lateness[k] for k in sorted(lateness)])
        taken = np.array([times[k] for k in sorted(times)])
        return Replay(seconds, cpu, len(late), len(due), late, growth_of(late), taken)

    def __enter__(self) -> HttpTarget:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the service running: the TestBench did not start it."""

    def _connect(self) -> HTTPConnection:
        return self._kind(*self._address, timeout=_TIMEOUT)

    def _send(self, connection: HTTPConnection, k: int) -> None:
        request = self._workload
        path = request.path.replace("{k}", str(k))
        body = None if request.body is None else request.body.replace("{k}", str(k)).encode()
        headers = {} if body is None else {"Content-Type": request.content_type}
        try:
            connection.request(request.method, path, body, headers)
            response = connection.getresponse()
            response.read()
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a method or path that HTTP does not allow
            raise InputError(
                f"{request.method} {self.url}{path}: {one_line(error) or type(error).__name__}; is the service running?"
            ) from None
        if response.status >= 400:
            raise InputError(
                f"{request.method} {self.url}{path}: status {response.status} {response.reason}; correct the request"
            )


def check_address(url: Any, what: str = "url") -> SplitResult:
    """Return the parts of an address of HTTP.

    Raises:
        InputError: it is none, or its port is none.
    """
    remedy = "write it like http://127.0.0.1:8080"
    try:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        port = parts.port
    except ValueError as error:  # an address of IPv6 cut short, or a port out of range
        raise InputError(f"{what} {shown(url)}: {one_line(error)}; {remedy}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InputError(f"{what} {shown(url)}: not an address of HTTP; {remedy}")
    return parts


def process_clock(pid: int) -> Callable[[], float]:
    """Return a clock of the CPU-seconds of a process on this machine and of its children.

    Raises:
        InputError: the process does not exist, or it ends (raised by the clock).
    """
    as_whole_number("pid", pid, 1, MAX_PID)

    def read() -> float:
        try:
            process = psutil.Process(pid)
            return sum(cpu_seconds(p.pid) for p in (process, *process.children(recursive=True)))
        except psutil.Error:
            raise InputError(
                f"pid {pid}: no such process on this machine; use the pid of the running service"
            ) from None

    read()
    return read


def metric_clock(url: str, metric: str = CPU_METRIC) -> Callable[[], float]:
    """Return a clock that reads CPU-seconds from a URL: a bare number, or the sum of a Prometheus metric's series.

    Raises:
        InputError: nothing answers at the URL, or its answer has no such number.
    """
    check_address(url, "address of a CPU clock")

    def read() -> float:
        try:
            with urlopen(url, timeout=_TIMEOUT) as response:
                text = response.read().decode("utf-8", "replace")
        except (URLError, HTTPException, OSError, ValueError) as error:
            raise InputError(f"{url}: {one_line(error)}; use the address of a counter of CPU-seconds") from None
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        named = [line for line in lines if line.partition("{")[0].partition(" ")[0] == metric]
        bare = lines if len(lines) == 1 and len(lines[0].split()) == 1 else []
        try:
            values = [float(line.rpartition("}")[2].split()[-1]) for line in named or bare]
        except (ValueError, IndexError):
            values = []
        if not values or not all(map(math.isfinite, values)):
            raise InputError(f"{url}: neither a number nor a metric {metric!r}; name the right metric in cpu_metric")
        return sum(values)

    read()
    return read
