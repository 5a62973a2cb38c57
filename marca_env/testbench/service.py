"""Service in a separate process, and the open-loop load generator that replays requests to it.

Requests are small binary messages that carry their deadline. The service answers them in order on one thread and
records how late it started each and how long it took. The TestBench uses only that and the CPU clock of the process.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from marca_env.utils.errors import InputError, one_line

Workload = Hashable
"""Work of a service for each request of a bucket; only the service interprets it."""
_MESSAGE = struct.Struct("<dq")
_WARM_UP, _TIMED = 4, 32
_WARM_UP_SECONDS = 0.15


@dataclass(frozen=True)
class Bucket:
    """Group of similar requests, and how to measure their cost."""

    stage: str
    cluster: str
    component: str
    value_bucket: int
    queue_length: float
    workload: Workload
    against: Workload | None = None
    """Workload without the component, whose cost is subtracted; for ``degradation`` the undegraded workload."""


class Service(Protocol):
    """Service that the TestBench can measure; a picklable factory builds it in the service's process."""

    def buckets(self) -> Sequence[Bucket]:
        """Return every bucket that can be measured."""
        ...

    def handler(self, workload: Workload) -> Callable[[int], object]:
        """Return a function that serves the k-th request of the workload, k = 0, 1, …."""
        ...


@dataclass(frozen=True)
class Replay:
    """Measurements of one replay of a workload."""

    seconds: float
    """Wall-clock time."""
    cpu: float
    """CPU time of the service's processes, seconds."""
    served: int
    offered: int
    lateness: np.ndarray
    """Start of service minus deadline of each served request, seconds, (served,)."""
    growth: float
    """Mean lateness of the last quarter of the requests minus that of the first, seconds."""
    service_times: np.ndarray | None = None
    """Wall-clock time from start to end of service of each served request, seconds, (served,); ``None``: unknown."""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time (user and system) that a process has used so far, seconds."""
    if sys.platform == "linux":
        try:  # the kernel's clock of that process, in nanoseconds; psutil's readings step by 10 ms
            return time.clock_gettime((~pid << 3) | 2)
        except OSError:
            pass
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


class ServiceProcess:
    """Set of ``machines`` processes that each run the service of ``factory`` on one thread.

    Raises:
        InputError: the factory raised it in the service's process.
    """

    def __init__(self, factory: Callable[[], Service], machines: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self.cores = 1
        self._processes, self._controls, self._loads = [], [], []
        for _ in range(machines):
            control, service_control = context.Pipe()
            service_load, load = context.Pipe(duplex=False)
            process = context.Process(target=_serve, args=(service_control, service_load, factory), daemon=True)
            process.start()
            service_control.close()
            service_load.close()
            self._processes.append(process)
            self._controls.append(control)
            self._loads.append(load)
        try:
            ready = [self._receive(c) for c in self._controls]
        except BaseException:
            self.close()
            raise
        self.buckets: list[Bucket] = ready[0]

    def prepare(self, workload: Workload) -> float:
        """Prepare and warm up for a workload; return the approximate CPU seconds of one request."""
        return float(np.mean(self._ask("prepare", workload)))

    def replay(self, due: np.ndarray, patience: float) -> Replay:
        """Send n requests; return the measurements.

        Args:
            due: (n,) time at which each request is sent, seconds after the start.
            patience: once the service is more than this many seconds late, it drops all requests that are left.
        """
        for k, control in enumerate(self._controls):
            control.send(("replay", (len(due[k :: len(self._loads)]), patience)))
        before = self._cpu()
        start = time.monotonic()
        self._send(start + due)
        parts = [self._receive(c) for c in self._controls]
        seconds = time.monotonic() - start
        lateness = np.concatenate([late for late, _ in parts])
        growth = max(growth_of(late) for late, _ in parts)
        times = np.concatenate([times for _, times in parts])
        return Replay(seconds, self._cpu() - before, len(lateness), len(due), lateness, growth, times)

    def _send(self, due: np.ndarray) -> None:
        loads, pack = self._loads, _MESSAGE.pack
        for k, moment in enumerate(due):
            wait = moment - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            loads[k % len(loads)].send_bytes(pack(moment, k))

    def _cpu(self) -> float:
        return sum(cpu_seconds(p.pid or 0) for p in self._processes)

    def _ask(self, what: str, argument: Any) -> list[Any]:
        for control in self._controls:
            control.send((what, argument))
        return [self._receive(c) for c in self._controls]

    @staticmethod
    def _receive(control: Connection) -> Any:
        try:
            status, value = control.recv()
        except EOFError:
            raise InputError(
                "the service's process ended unexpectedly (killed, or out of memory); see its output above"
            ) from None
        if status == "input error":
            raise InputError(value)
        if status == "failed":
            message, trace = value
            raise InputError(f"the service failed: {message}; --debug shows the traceback") from RuntimeError(trace)
        return value

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        for connection in (*self._controls, *self._loads):
            connection.close()

    def __enter__(self) -> ServiceProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def growth_of(lateness: np.ndarray) -> float:
    """Return the mean lateness of the last quarter of the requests (n,) minus that of the first, seconds."""
    quarter = max(1, len(lateness) // 4)
    return float(lateness[-quarter:].mean() - lateness[:quarter].mean()) if len(lateness) else 0.0


# -- the service's process --------------------------------------------------------------------------------
def _serve(control: Connection, load: Connection, factory: Callable[[], Service]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the bench, which then ends this process
    try:
        with threadpool_limits(1):
            service = factory()
            gc.freeze()  # keeps the collector off the built service while requests are timed
            control.send(("done", list(service.buckets())))
            handler: Callable[[int], object] = _nothing
            while True:
                what, argument = control.recv()
                if what == "prepare":
                    handler = service.handler(argument)
                    control.send(("done", _warm_up(handler)))
                else:
                    control.send(("done", _answer(load, handler, *argument)))
    except EOFError:
        pass  # the bench has ended
    except InputError as error:
        control.send(("input error", str(error)))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {one_line(error)} ({Path(last.filename).name}, line {last.lineno})"
        control.send(("failed", (message, traceback.format_exc())))


def _nothing(_: int) -> None:
    """Do nothing: the handler before any workload."""


def _warm_up(handler: Callable[[int], object]) -> float:
    """Serve a few requests, then time some more; return the mean CPU seconds of one."""
    times = []
    start = time.monotonic()
    for k in range(_WARM_UP + _TIMED):
        before = time.process_time()
        handler(k)
        times.append(time.process_time() - before)
        if k >= _WARM_UP and time.monotonic() - start > _WARM_UP_SECONDS:
            break
    return float(np.mean(times[_WARM_UP:]))


def _answer(
    load: Connection, handler: Callable[[int], object], n: int, patience: float
) -> tuple[np.ndarray, np.ndarray]:
    """Serve ``n`` messages; after ``patience`` seconds of lateness read the rest without serving it.

    Returns:
        Lateness and service time of each served message, seconds, (served,).
    """
    lateness, times = [], []
    late = 0.0
    for _ in range(n):
        due, k = _MESSAGE.unpack(load.recv_bytes())
        if late <= patience:
            start = time.monotonic()
            late = start - due
            lateness.append(late)
            handler(k)
            times.append(time.monotonic() - start)
    return np.array(lateness), np.array(times)
