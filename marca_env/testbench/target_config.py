"""Target files, which describe a user's service and its buckets for the TestBench; :func:`load_target` reads them.

Example::

    http: {url: "http://127.0.0.1:8080", pid: 4711}     # or cpu_url: a number of CPU-seconds, or Prometheus metrics
    cores: 4                                            # of each machine
    buckets:
      - {stage: rank, cluster: rank, component: base, request: {path: "/rank?n=1"}}
      - {stage: rank, cluster: rank, component: queue, queue_length: 200, request: {path: "/rank?n=200"},
         against: {path: "/rank?n=1"}}

With ``python: "package.module:function"`` instead of ``http`` the function is called with each bucket's ``request``.
`marca testbench` finds modules of the current folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from marca_env.testbench.service import Bucket, ServiceProcess, Workload
from marca_env.testbench.targets import (
    CPU_METRIC,
    MAX_CONNECTIONS,
    MAX_CORES,
    MAX_PID,
    FunctionService,
    HttpRequest,
    HttpTarget,
    Target,
    check_address,
    metric_clock,
    process_clock,
)
from marca_env.utils.dataclass_schema import from_plain
from marca_env.utils.errors import InputError
from marca_env.utils.importing import import_object
from marca_env.utils.validation import as_number, as_whole_number
from marca_env.utils.yaml import read_mapping


@dataclass(frozen=True)
class _Http:
    url: str
    pid: int | None = None
    cpu_url: str | None = None
    cpu_metric: str = CPU_METRIC
    connections: int = 8


@dataclass(frozen=True)
class _Bucket:
    stage: str
    cluster: str
    component: str
    request: Any
    against: Any = None
    value_bucket: int = 0
    queue_length: float = 0.0


@dataclass(frozen=True)
class _File:
    buckets: tuple[_Bucket, ...]
    http: _Http | None = None
    python: str | None = None
    cores: int = 1


def load_target(path: str | Path) -> Callable[[int], Target]:
    """Read a target file; return a function of the number of machines that starts or finds the service.

    Raises:
        InputError: no such file, an unknown or missing field, no such function, or no way to read the CPU.
    """
    try:
        data = _requests_as_text(read_mapping(Path(path), "target"))
        file = from_plain(_File, data, "target")
        return _target(file)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _requests_as_text(data: Any) -> Any:
    """Replace requests by JSON text, so that they are passed on without interpretation."""
    if isinstance(data, dict) and isinstance(data.get("buckets"), list):
        for bucket in data["buckets"]:
            for name in ("request", "against"):
                if isinstance(bucket, dict) and name in bucket:
                    bucket[name] = json.dumps(bucket[name], sort_keys=True)
    return data


def _target(file: _File) -> Callable[[int], Target]:
    if (file.http is None) == (file.python is None):
        raise InputError("no service, or two; give one of http and python")
    if not file.buckets:
        raise InputError("buckets: empty; add at least one")
    as_whole_number("cores", file.cores, 1, MAX_CORES)
    for k, bucket in enumerate(file.buckets):
        as_whole_number(f"buckets[{k}].value_bucket", bucket.value_bucket)
        as_number(f"buckets[{k}].queue_length", bucket.queue_length, 0)
    if file.python is not None:
        function = _function(file.python)
        service = partial(FunctionService, function, [_bucket(b, lambda text: text) for b in file.buckets])
        return lambda machines: ServiceProcess(service, machines)
    assert file.http is not None
    http = file.http
    check_address(http.url, "http: url")
    if http.pid is not None:
        as_whole_number("http: pid", http.pid, 1, MAX_PID)
    if http.cpu_url is not None:
        check_address(http.cpu_url, "http: cpu_url")
    as_whole_number("http: connections", http.connections, 1, MAX_CONNECTIONS)
    if (http.pid is None) == (http.cpu_url is None):
        raise InputError("http: no CPU clock, or two; give one of pid and cpu_url")
    buckets = [_bucket(b, lambda text: from_plain(HttpRequest, json.loads(text), "request")) for b in file.buckets]

    def start(machines: int) -> Target:
        cpu = process_clock(http.pid) if http.pid is not None else metric_clock(str(http.cpu_url), http.cpu_metric)
        return HttpTarget(http.url, buckets, cpu, file.cores, http.connections)

    return start


def _bucket(bucket: _Bucket, workload: Callable[[str], Workload]) -> Bucket:
    against = None if bucket.against is None else workload(bucket.against)
    return Bucket(
        bucket.stage,
        bucket.cluster,
        bucket.component,
        bucket.value_bucket,
        bucket.queue_length,
        workload(bucket.request),
        against,
    )


def _function(path: str) -> Callable[[Any], object]:
    function = import_object(path, "python", separator=":")
    if not callable(function):
        raise InputError(f"python: {path!r} is not a function; write package.module:function")
    return function
