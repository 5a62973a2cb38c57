"""Run the decision server: one process, or several that share a port, a state folder and their metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI

from benchmarks.serving.app import AppLimits, create_app
from benchmarks.serving.audit import AuditLog
from benchmarks.serving.decider import Decider
from benchmarks.serving.guards import GuardLimits
from benchmarks.serving.limits import read_token
from benchmarks.serving.metrics import MULTIPROCESS
from benchmarks.serving.modes import Mode
from benchmarks.serving.policy_watch import PolicyWatch, load_decider, policy_version
from benchmarks.serving.prices import PriceBoard
from benchmarks.serving.service import DecisionService
from benchmarks.serving.settings import ServeSettings
from benchmarks.serving.shared_state import PRICES, SharedPriceBoard
from benchmarks.serving.static_rule import StaticRule
from marca_env.utils.errors import InputError
from marca_env.utils.validation import as_number

SETTINGS = "MARCA_SERVE_SETTINGS"
"""Environment variable through which processes get their settings."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
logger = logging.getLogger("marca.serve")


def make_service(settings: ServeSettings) -> DecisionService:
    """Return the service that the settings describe.

    Raises:
        InputError: anything that is missing, damaged or does not fit together.
    """
    decider, version = _load(settings)
    clusters = decider.scenario.cluster_names
    ages: dict[str, Any] = {"fresh_seconds": settings.fresh_seconds, "hold_seconds": settings.hold_seconds}
    board = PriceBoard(clusters, **ages)
    if settings.state is not None:
        board = SharedPriceBoard(Path(settings.state) / PRICES, clusters, **ages)
    service = DecisionService(
        decider,
        board,
        mode=Mode.from_data(settings.mode),
        limits=GuardLimits(**settings.guards),
        state=settings.state,
        audit=None if settings.audit is None else AuditLog(settings.audit, settings.audit_sample),
        key_field=settings.key_field,
        seconds=as_number("--timeout", settings.seconds, 1e-3),
        version=version,
    )
    prices = _parse_prices(settings.prices) or dict(zip(clusters, decider.scenario.prices, strict=False))
    if prices and board.latest is None:
        service.set_prices(prices, "start")
    if service.mode != Mode.from_data(settings.mode):
        logger.warning("mode %s, as saved in %s; change it with PUT /mode", service.mode, settings.state)
    return service


def _load(settings: ServeSettings, rule: StaticRule | None = None) -> tuple[Decider, str]:
    return load_decider(
        settings.policy,
        features=settings.features,
        static=rule or settings.static,
        trust=settings.allow_code,
        warm=settings.warm,
    )


def _parse_prices(text: str | None) -> dict[str, float]:
    """Return the prices of ``retrieval=1.5,ranking=2``.

    Raises:
        InputError: something else.
    """
    prices = {}
    for part in (text or "").split(",") if text else ():
        name, _, value = part.partition("=")
        try:
            prices[name.strip()] = float(value)
        except ValueError:
            raise InputError(f"--prices {text!r}: give cluster=price, such as retrieval=1.5,ranking=2") from None
    return prices


def make_app(settings: ServeSettings) -> FastAPI:
    """Return the application that the settings describe, with its watch over the policy folder."""
    token = None if settings.token_file is None else read_token(settings.token_file)
    service = make_service(settings)
    watch = PolicyWatch(Path(settings.policy), partial(_load, settings), service)
    limits = AppLimits(settings.most_requests, settings.most_bytes, drain_seconds=settings.drain_seconds)
    hosts = [*LOOPBACK, "[::1]"] if settings.host in LOOPBACK and token is None else None
    return create_app(service, token=token, limits=limits, background=[watch], hosts=hosts)


def app_of_process() -> FastAPI:
    """Return the application of a process that :func:`serve` started."""
    torch.set_num_threads(1)  # processes share the cores
    _log_to_stderr()
    return make_app(ServeSettings.from_json(os.environ[SETTINGS]))


def serve(settings: ServeSettings) -> None:
    """Serve until SIGTERM or SIGINT; calls that run then are answered.

    Raises:
        InputError: settings that do not fit, or a port that is taken.
    """
    if settings.token_file is not None:
        read_token(settings.token_file)
    with _shared_folders(settings) as settings, _bind(settings) as listener:
        options: dict[str, Any] = {
            "access_log": False,
            "server_header": False,
            "timeout_graceful_shutdown": settings.grace_seconds,
            "timeout_keep_alive": 30,
            "log_level": "warning",
        }
        port = listener.getsockname()[1]
        if settings.workers > 1:
            policy_version(settings.policy)  # a missing one is said once, not by every process
            os.environ[SETTINGS] = settings.to_json()
            _announce(settings, port)
            uvicorn.run(
                f"{__name__}:app_of_process", factory=True, workers=settings.workers, fd=listener.fileno(), **options
            )
            return
        _log_to_stderr()
        app = make_app(settings)
        _announce(settings, port)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listener])


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _announce(settings: ServeSettings, port: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if settings.host not in LOOPBACK and settings.token_file is None:
        logger.warning("anybody who reaches %s may set prices and mode; use --token-file", host)
    print(f"Serving {settings.policy} on http://{host}:{port} (API: /docs). Stop with Ctrl-C.", flush=True)


@contextlib.contextmanager
def _bind(settings: ServeSettings) -> Iterator[socket.socket]:
    """Yield a socket that listens on the port; 0: any free one."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit it. asyncio would set it, but not in workers, which get the socket as a bare descriptor; an
    # answer would then wait 40 ms for the client's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(f"--port {settings.port} on {settings.host}: {error}; choose another one") from None
    with listener:
        listener.set_inheritable(True)
        yield listener


@contextlib.contextmanager
def _shared_folders(settings: ServeSettings) -> Iterator[ServeSettings]:
    """Yield the settings with a state folder, and make the folder in which processes add up their metrics.

    Several processes need a state folder to agree on prices and mode; without one of the user it is temporary.
    """
    if settings.workers == 1:
        yield settings
        return
    folder = tempfile.mkdtemp(prefix="marca-serve-")
    os.environ[MULTIPROCESS] = folder
    try:
        yield dataclasses.replace(settings, state=settings.state or str(Path(folder) / "state"))
    finally:
        os.environ.pop(MULTIPROCESS, None)
        shutil.rmtree(folder, ignore_errors=True)
