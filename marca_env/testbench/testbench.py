"""AutoBucket TestBench: replay buckets of similar requests at a fixed rate, read the CPU, derive the cost (Eq. 26).

The service under test runs in separate processes. The load generator is open-loop: it keeps its schedule whatever the
service does. Each repeat measures all buckets once, in a new order, so that a drift of the machine affects all alike.
The spread between repeats shows the precision of a cost.
"""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from threadpoolctl import threadpool_info

from marca_env.logs.schema import COST_COLUMNS, LATENCY_COLUMNS
from marca_env.models.latency import Duration
from marca_env.scenario.scenario import Scenario
from marca_env.testbench.cascade_service import CascadeService
from marca_env.testbench.service import Bucket, Replay, Service, ServiceProcess, Workload
from marca_env.testbench.targets import Target
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.progress import ProgressCallback
from marca_env.utils.validation import as_number, as_seed, as_whole_number

LATENCY = tuple(c.name for c in LATENCY_COLUMNS)
"""Columns of a cost log: median and 99 % quantile of the service time."""
SATURATED, IDLE = 0.9, 0.02
"""Utilisation above and below which a measurement is refused."""
GROWTH = 0.3
"""Growth of lateness, as a share of the replay, above which the bench cannot keep up."""
ARRIVALS = ("uniform", "poisson")
MAX_MACHINES = 1000
MAX_QPS = 3000.0
"""Maximum rate of the load generator, requests per second."""
_OVERHEAD = 60e-6
"""Core-seconds for receiving a request, in the first estimate of a rate."""
_LEAST_SECONDS = 0.15
_RETRIES, _PAUSE = 4, 1.0
_PATIENCE = 1.5
"""Seconds of lateness beyond a replay's length after which the rest of its requests is dropped."""
_WHOLE = ("degradation", "request", "joint_action")
"""Components whose latency is that of the whole workload."""
_KEY = ["stage", "cluster", "component", "value_bucket", "queue_length", "repeat"]


class TestBench:
    """Bench that measures the cost of every bucket of a service, in core-seconds per request.

    Args:
        scenario: the system whose live cascade is measured.
        service: another service to measure: a picklable factory of a :class:`~marca_env.testbench.service.Service`.
        target: a service that runs separately: a function of the number of machines that returns a
            :class:`~marca_env.testbench.targets.Target`, such as
            :func:`~marca_env.testbench.target_config.load_target` reads from a file.
        machines: number of service processes, each on one core; for a target the number of its machines.
        seconds: length of one replay.
        repeats: replays of each bucket.
        qps: fixed request rate of every bucket; ``None``: a rate for each bucket that leads to ``utilisation``.
        utilisation: CPU utilisation to aim at, a fraction.
        arrivals: ``uniform`` or ``poisson``.
        seed: seed of the requests, the arrivals and the order of the buckets.

    Raises:
        InputError: an invalid setting.
    """

    __test__ = False

    @checked_arguments
    def __init__(
        self,
        scenario: Scenario | str | Path = "default",
        *,
        service: Callable[[], Service] | None = None,
        target: Callable[[int], Target] | None = None,
        machines: int = 1,
        seconds: float = 1.0,
        repeats: int = 3,
        qps: float | None = None,
        utilisation: float = 0.45,
        arrivals: str = "uniform",
        seed: int = 0,
    ) -> None:
        if arrivals not in ARRIVALS:
            raise InputError(unknown_option("arrivals", arrivals, ARRIVALS))
        as_whole_number("machines", machines, 1, MAX_MACHINES)
        as_whole_number("repeats", repeats, 1)
        as_seed(seed)
        for name, value in (("seconds", seconds), ("qps", qps)):
            if value is not None and as_number(name, value) <= 0:
                raise InputError(f"{name} is {value}; it must be positive")
        if not IDLE < as_number("utilisation", utilisation) < SATURATED:
            raise InputError(f"utilisation is {utilisation}; use a value between {IDLE} and {SATURATED}, such as 0.45")
        self.scenario = Scenario.load(scenario)
        if service is not None and target is not None:
            raise InputError("service and target exclude each other; pass one of them")
        if target is None:
            if service is None:
                service = partial(CascadeService, self.scenario, seed)
            target = partial(ServiceProcess, service)
        self.target, self.machines, self.seconds, self.repeats = target, machines, seconds, repeats
        self._capacity = float(machines)
        """Cores of all machines; known once the target runs."""
        self.qps, self.utilisation, self.arrivals, self.seed = qps, utilisation, arrivals, seed

    def run(self, **options: Any) -> pd.DataFrame:
        """Return all rows of :meth:`measure` as a cost log."""
        return to_cost_log(self.measure(**options))

    def measure(
        self,
        *,
        only: Iterable[str] = (),
        done: pd.DataFrame | None = None,
        budget: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Measure and yield the rows of a cost log one by one, so that an interruption loses none.

        Args:
            only: stages or components (or their prefixes, such as ``channel``) to measure; empty: all.
            done: cost log of an interrupted run, whose rows are not measured again.
            budget: seconds for all replays; they are shortened to fit.
            progress: called with (rows measured, rows in all).

        Raises:
            InputError: nothing matches ``only``, or the service is saturated or idle; the message suggests a rate.
        """
        with self.target(self.machines) as process:
            self._capacity = float(self.machines * process.cores)
            buckets = _select(process.buckets, tuple(only))
            todo = [(r, b) for r in range(self.repeats) for b in buckets]
            if done is not None:
                finished = {(*key[:4], round(key[4], 6), key[5]) for key in done[_KEY].itertuples(index=False)}
                todo = [(r, b) for r, b in todo if _key(r, b) not in finished]
            seconds = self._replay_seconds(budget, todo)
            rows = 0
            for repeat in range(self.repeats):
                for row in self._round(process, [b for r, b in todo if r == repeat], repeat, seconds):
                    yield row
                    rows += 1
                    if progress is not None:
                        progress(rows, len(todo))

    def _replay_seconds(self, budget: float | None, todo: list[tuple[int, Bucket]]) -> float:
        if budget is None or not todo:
            return self.seconds
        replays = len({(r, w) for r, b in todo for w in _workloads(b)})
        return float(np.clip(budget / replays - 0.1, _LEAST_SECONDS, self.seconds))

    def _round(self, process: Target, buckets: list[Bucket], repeat: int, seconds: float) -> Iterator[dict[str, Any]]:
        """Measure every workload once in a random order; yield a bucket's row once its workloads are measured."""
        rng = np.random.default_rng([self.seed, repeat])
        workloads = sorted({w for b in buckets for w in _workloads(b)}, key=repr)
        readings: dict[Workload, dict[str, float]] = {}
        waiting = list(buckets)
        for k in rng.permutation(len(workloads)):
            readings[workloads[k]] = self._reading(process, workloads[k], seconds, rng)
            for bucket in [b for b in waiting if all(w in readings for w in _workloads(b))]:
                waiting.remove(bucket)
                yield self._row(bucket, repeat, readings)

    def _row(self, bucket: Bucket, repeat: int, readings: dict[Workload, dict[str, float]]) -> dict[str, Any]:
        reading = dict(readings[bucket.workload])
        if bucket.against is not None:
            if bucket.component not in _WHOLE:
                reading |= _latency_difference(reading, readings[bucket.against])
            sign = -1.0 if bucket.component == "degradation" else 1.0
            reading["cost"] = max(0.0, sign * (reading["cost"] - readings[bucket.against]["cost"]))
        key = dict(zip(_KEY, _key(repeat, bucket), strict=True))
        return {**key, **reading, "machines": self.machines, "cores": round(self._capacity / self.machines)}

    def _reading(
        self, process: Target, workload: Workload, seconds: float, rng: np.random.Generator
    ) -> dict[str, float]:
        """Measure rate, utilisation p and cost = p · machines · cores / QPS (Eq. 26) of one workload."""
        estimate = process.prepare(workload) + _OVERHEAD
        qps = self.qps or min(self.utilisation * self._capacity / estimate, MAX_QPS)
        replay, problem = self._replay(process, workload, qps, seconds, rng)
        for attempt in range(_RETRIES if self.qps is None else 0):  # the rate was too high, or other work interfered
            if problem is None:
                break
            time.sleep(_PAUSE * attempt)
            qps = self._next_rate(qps, replay)
            replay, problem = self._replay(process, workload, qps, seconds, rng)
        if problem is not None:
            raise InputError(problem)
        utilisation = replay.cpu / (replay.seconds * self._capacity)
        rate = replay.served / replay.seconds
        return {
            "qps": rate,
            "utilisation": utilisation,
            "cost": utilisation * self._capacity / rate,
            "lateness": float(replay.lateness.mean()),
            **_latency_quantiles(replay.service_times),
        }

    def _next_rate(self, qps: float, replay: Replay) -> float:
        """Return a lower rate, but not so low that the bench would be idle once other work has ended."""
        if replay.served == 0 or replay.cpu <= 0:
            return 0.7 * qps
        full_rate = self._full_rate(replay)
        return min(self.utilisation * full_rate, MAX_QPS, max(0.7 * qps, 2 * IDLE * full_rate))

    def _full_rate(self, replay: Replay) -> float:
        """Return the requests per second that would use all cores."""
        return self._capacity * replay.served / replay.cpu

    def _replay(
        self, process: Target, workload: Workload, qps: float, seconds: float, rng: np.random.Generator
    ) -> tuple[Replay, str | None]:
        replay = process.replay(self._due(qps, seconds, rng), patience=_PATIENCE + seconds)
        return replay, self._problem(workload, replay, qps, seconds)

    def _due(self, qps: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
        """Draw the deadlines, seconds from the start, (n,)."""
        n = max(2, round(qps * seconds))
        gaps = np.full(n, 1.0) if self.arrivals == "uniform" else rng.exponential(size=n)
        return np.cumsum(gaps) / qps

    def _problem(self, workload: Workload, replay: Replay, qps: float, seconds: float) -> str | None:
        """Return why a replay does not show the cost, with a better rate; ``None`` if it does."""
        if replay.served == 0 or replay.cpu <= 0:
            return f"workload {workload}: no request was served at {qps:.0f} QPS; try a lower QPS"
        used = replay.cpu / (replay.seconds * self._capacity)
        better = f"try {self.utilisation * self._full_rate(replay):.0f} QPS or leave the QPS out"
        measured = f"workload {workload} at {qps:.0f} QPS: utilisation {used:.0%}"
        if used > SATURATED or replay.served < replay.offered:
            return f"{measured}, lateness up to {replay.lateness.max():.2f} s: the bench is saturated; {better}"
        if replay.growth > GROWTH * max(seconds, 0.5):
            if self.qps is None:
                better = "other work keeps the machine busy: stop it, then go on with --resume"
            return f"{measured}, lateness grew by {replay.growth:.2f} s: the bench cannot keep up; {better}"
        if used < IDLE and (self.qps is not None or qps < MAX_QPS):  # cheaper work cannot be sent any faster
            return f"{measured}: the bench is idle and noise would drown the cost; {better}"
        return None


def _latency_quantiles(times: np.ndarray | None) -> dict[str, float]:
    """Return the latency columns of service times (served,); a target that does not report them has none."""
    if times is None or len(times) == 0:
        return {}
    return dict(zip(LATENCY, np.quantile(times, (0.5, 0.99)).tolist(), strict=True))


def _latency_difference(reading: dict[str, float], against: dict[str, float]) -> dict[str, float]:
    """Return the latency columns of a component: its workload's duration without that of the workload against it."""
    if not all(name in r for name in LATENCY for r in (reading, against)):
        return {}
    whole, rest = (Duration.from_quantiles(*(np.array(r[name]) for name in LATENCY)) for r in (reading, against))
    component = whole.without(rest)
    return dict(zip(LATENCY, (float(component.quantile(share)) for share in (0.5, 0.99)), strict=True))


def _workloads(bucket: Bucket) -> list[Workload]:
    return [bucket.workload] if bucket.against is None else [bucket.workload, bucket.against]


def _key(repeat: int, bucket: Bucket) -> tuple:
    """Return the key of a row; lengths are rounded as a file may round them."""
    length = round(float(bucket.queue_length), 6)
    return bucket.stage, bucket.cluster, bucket.component, bucket.value_bucket, length, repeat


def _select(buckets: list[Bucket], only: tuple[str, ...]) -> list[Bucket]:
    if not only:
        return buckets
    for name in only:
        if not any(b.stage == name or b.component.startswith(name) for b in buckets):
            raise InputError(unknown_option("bucket", name, {x for b in buckets for x in (b.stage, b.component)}))
    return [b for b in buckets if b.stage in only or b.component.startswith(only)]


def to_cost_log(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Convert rows of :meth:`TestBench.measure` to a cost log, with the mean ``lateness`` (seconds) of each replay.

    It has the columns of latency if any row does.
    """
    rows = list(rows)
    names = [*(c.name for c in COST_COLUMNS), "lateness"]
    names += [name for name in LATENCY if any(name in row for row in rows)]
    return pd.DataFrame(rows, columns=names).sort_values(_KEY, ignore_index=True)


def repeat_spread(cost_log: pd.DataFrame) -> pd.DataFrame:
    """Return the mean cost of each bucket and its test–retest spread.

    Columns: cost, spread (coefficient of variation between repeats), repeats, and the medians of the latency columns if
    the log has them.
    """
    groups = cost_log.groupby(_KEY[:-1], sort=False)
    columns = {"cost": ("cost", "mean"), "deviation": ("cost", "std"), "repeats": ("cost", "count")}
    columns |= {name: (name, "median") for name in LATENCY if name in cost_log}
    table = groups.agg(**columns).reset_index()  # type: ignore[call-overload]
    table["spread"] = table.pop("deviation") / table["cost"].where(table["cost"] > 0)
    return table


def describe_machine() -> dict[str, Any]:
    """Describe this machine: processor, cores, memory, versions, date."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": sorted({f"{x['internal_api']} {x['version']}" for x in threadpool_info() if x["user_api"] == "blas"}),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
