"""The decision server as a deployment of Ray Serve: replicas of one application on one machine or a cluster.

Every replica is the application of :mod:`benchmarks.serving.app`. They share prices, mode and telemetry through the
state folder, which must be the same folder on every machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve

from agents.rllib.core.cluster import start_ray
from benchmarks.serving.metrics import MULTIPROCESS
from benchmarks.serving.policy_watch import policy_version
from benchmarks.serving.server import make_app
from benchmarks.serving.settings import ServeSettings
from benchmarks.serving.stop_signals import stop_on_signals
from marca_env.utils.errors import InputError

NAME = "marca"
"""Name of the application and its deployment."""
_MOST_ONGOING = 200  # calls that a replica works on; calls that wait are decided together


def deployment(settings: ServeSettings, replicas: int, metrics: Path) -> serve.Application:
    """Return the application of Ray Serve, for ``serve.run``.

    Args:
        settings: as for one process; paths are those of the replicas' machines.
        replicas: number of replicas, each with a CPU.
        metrics: folder of each machine in which its replicas add up their metrics.
    """
    options = {"num_cpus": 1, "runtime_env": {"env_vars": {MULTIPROCESS: str(metrics), "OMP_NUM_THREADS": "1"}}}
    replica = serve.deployment(
        serve.ingress(_builder(settings, metrics))(),
        name=NAME,
        num_replicas=replicas,
        max_ongoing_requests=_MOST_ONGOING,
        ray_actor_options=options,
        graceful_shutdown_timeout_s=settings.grace_seconds,
    )
    return replica.bind()


def _builder(settings: ServeSettings, folder: Path) -> Callable[[], FastAPI]:
    def build() -> FastAPI:
        folder.mkdir(parents=True, exist_ok=True)
        return make_app(settings)

    return build


def serve_on_ray(settings: ServeSettings, replicas: int, address: str | None = None) -> None:
    """Serve with replicas until SIGTERM or SIGINT; then remove the application.

    Args:
        settings: what to serve.
        replicas: number of replicas.
        address: Ray cluster to join; ``None``: start a local one.

    Raises:
        InputError: no policy, no port, or a cluster without a shared state folder.
    """
    policy_version(settings.policy)
    if settings.port == 0:
        raise InputError("--port 0: Ray Serve needs a port; name one")
    if address is not None and settings.state is None:
        raise InputError("--address: replicas share prices and mode; give --state DIR, a folder of all machines")
    with contextlib.ExitStack() as stack:
        if settings.state is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="marca-serve-", ignore_cleanup_errors=True))
            settings = dataclasses.replace(settings, state=folder)
        start_ray(replicas + 1 if address is None else None, address)
        http = {"host": settings.host, "port": settings.port}
        serve.start(proxy_location="HeadOnly" if address is None else "EveryNode", http_options=http)
        metrics = Path(tempfile.gettempdir()) / f"marca-metrics-{settings.port}-{time.time_ns()}"
        stack.callback(shutil.rmtree, metrics, ignore_errors=True)
        try:
            serve.run(deployment(_absolute(settings), replicas, metrics), name=NAME, route_prefix="/")
            where = f"http://{settings.host}:{settings.port}"
            print(f"Serving {settings.policy} on {where} with {replicas} replicas. Ctrl-C stops.", flush=True)
            with stop_on_signals() as stop:
                stop.wait()
        finally:
            if address is None:
                serve.shutdown()
            else:
                serve.delete(NAME)


def _absolute(settings: ServeSettings) -> ServeSettings:
    """Return the settings with absolute paths: replicas work in other folders."""
    names = ("policy", "features", "state", "audit", "token_file")
    given = {name: value for name in names if (value := getattr(settings, name)) is not None}
    paths: dict[str, Any] = {name: str(Path(value).absolute()) for name, value in given.items()}
    return dataclasses.replace(settings, **paths)
