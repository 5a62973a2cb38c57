"""The ASGI application of the decision server. :mod:`benchmarks.serving.server` runs it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.trustedhost import TrustedHostMiddleware

from benchmarks.serving.batching import Batcher, BusyError
from benchmarks.serving.decider import Decision
from benchmarks.serving.drain import Drain
from benchmarks.serving.limits import Limits
from benchmarks.serving.schemas import (
    DECIDE_BODY,
    DECIDE_RESPONSES,
    MODE_BODY,
    PRICES_BODY,
    TELEMETRY_BODY,
    body_schema,
)
from benchmarks.serving.service import DecisionService
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import parse_json

logger = logging.getLogger("marca.serve")
_DESCRIPTION = "Decides, for each request of a cascade recommender, how much computation it gets."


@dataclass(frozen=True)
class AppLimits:
    """Limits of the application."""

    most_requests: int = 1_000
    """Requests of a call of /decide."""
    most_bytes: int = 1_048_576
    """Size of a body."""
    body_seconds: float = 10.0
    """Time in which a client must send a body."""
    most_waiting: int = 20_000
    """Requests that may wait for a decision; further ones get the static action."""
    sync_seconds: float = 0.2
    """Time between two looks at what other processes changed."""
    drain_seconds: float = 0.0
    """Time after SIGTERM in which /readyz says that the server drains, while it still takes calls."""


def create_app(
    service: DecisionService,
    *,
    token: str | None = None,
    limits: AppLimits | None = None,
    background: Sequence[Callable[[], None]] = (),
    hosts: Sequence[str] | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        service: decides.
        token: bearer token that clients must send; ``None``: none.
        limits: limits of sizes and times.
        background: each is called again and again in a thread of its own, such as a watch over the policy.
        hosts: names under which clients may address the server, so that a web page cannot reach it under a name of its
            own; ``None``: any.
    """
    limits = limits or AppLimits()
    batcher = Batcher(service.decide, limits.most_waiting, lambda: service.decider.is_warm)
    drain = Drain()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        # a new policy takes long to load, and nobody may wait for that with a new mode or new prices
        jobs = [asyncio.create_task(_repeat(job, limits.sync_seconds)) for job in (service.synchronise, *background)]
        with drain.before_sigterm(limits.drain_seconds):
            yield
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        await batcher.stop()

    app = FastAPI(title="marca decision server", description=_DESCRIPTION, version="1", lifespan=lifespan)
    app.add_middleware(Limits, token=token, most_bytes=limits.most_bytes, seconds=limits.body_seconds)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    _add_decide(app, service, batcher, limits)
    _add_control(app, service)
    _add_probes(app, service, drain)

    @app.exception_handler(InputError)
    async def refuse(_: Request, error: InputError) -> Response:
        return _json({"error": one_line(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def refuse_invalid(_: Request, error: RequestValidationError) -> Response:
        return _json({"error": one_line(error, 300)}, 422)

    return app


def _json(data: Any, status: int = 200) -> Response:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=str)
    return Response(text, status, media_type="application/json")


async def _repeat(job: Callable[[], None], seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(job)
        except Exception as error:  # such as a damaged file; the server goes on with what it has
            logger.error("%s", one_line(error, 300))


def _add_decide(app: FastAPI, service: DecisionService, batcher: Batcher, limits: AppLimits) -> None:
    @app.post("/decide", openapi_extra=body_schema(DECIDE_BODY), responses=DECIDE_RESPONSES)
    async def decide(request: Request) -> Response:
        """Return a decision for every request; a bad one gets the static action and says why."""
        start = time.perf_counter()
        try:
            requests = _requests(await request.body(), limits.most_requests)
        except InputError as error:
            service.metrics.calls.labels("422").inc()
            return _json({"error": one_line(error)}, 422)
        decisions = await _decided(service, batcher, requests)
        service.metrics.calls.labels("200").inc()
        service.record(requests, decisions, time.perf_counter() - start)
        return _json(service.answer(decisions))


def _requests(body: bytes, most: int) -> list[Any]:
    """Return the requests of a body.

    Raises:
        InputError: the body is not ``{"requests": [...]}`` or has too many.
    """
    data = parse_json(body, "body", 'send {"requests": [{...}, ...]}')
    requests = data.get("requests") if isinstance(data, dict) else None
    if not isinstance(requests, list):
        raise InputError('body: no list "requests"; send {"requests": [{...}, ...]}')
    if len(requests) > most:
        raise InputError(f"requests: {len(requests)}; send at most {most} at once")
    return requests


async def _decided(service: DecisionService, batcher: Batcher, requests: Sequence[Any]) -> list[Decision]:
    """Return the decisions; the static action for all where there are none in time."""
    if not requests:
        return []
    try:
        return await batcher.decide(requests, service.seconds)
    except TimeoutError:
        fault = service.decider.fallback("time-out", f"not decided within {service.seconds:g} s")
    except BusyError as error:
        fault = service.decider.fallback("busy", str(error))
    except Exception as error:  # whatever failed, clients get an action
        logger.exception("a batch failed")
        fault = service.decider.fallback("model-fault", one_line(error, 300))
    return [fault] * len(requests)


def _add_control(app: FastAPI, service: DecisionService) -> None:
    _add_setting(
        app,
        "prices",
        PRICES_BODY,
        show=service.status,
        change=service.set_prices,
        shows="Return the prices in force with their version, age and state.",
        changes="Publish prices, by the name of the cluster; they get the next version.",
    )
    _add_setting(
        app,
        "mode",
        MODE_BODY,
        show=service.mode_status,
        change=service.set_mode,
        shows="Return the mode in force and the guard rails that act.",
        changes="Set the mode; it holds for all requests from now on and ends guard rails that act.",
    )

    @app.post("/telemetry", openapi_extra=body_schema(TELEMETRY_BODY))
    async def telemetry(request: Request) -> Response:
        """Take a reading of the load, for controller, guard rails, metrics and audit log."""
        reading = await asyncio.to_thread(service.take_telemetry, await request.body())
        return _json({"minute": reading.minute, "state": reading.state, "reason": reading.reason})


def _add_setting(
    app: FastAPI,
    name: str,
    body: dict[str, Any],
    *,
    show: Callable[[], dict[str, Any]],
    change: Callable[[Any], object],
    shows: str,
    changes: str,
) -> None:
    """Add GET and PUT of a setting under its name; both return what is in force."""

    @app.get(f"/{name}", name=f"{name}", description=shows)
    async def get() -> Response:
        return _json(show())

    @app.put(f"/{name}", name=f"set_{name}", description=changes, openapi_extra=body_schema(body))
    async def put(request: Request) -> Response:
        remedy = f"send an object as on the page /docs under PUT /{name}"
        await asyncio.to_thread(change, parse_json(await request.body(), "body", remedy, finite=True))
        return _json(show())


def _add_probes(app: FastAPI, service: DecisionService, drain: Drain) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        """Say that the process answers."""
        return _json({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        """Say whether requests may be sent here; prices that are stale are named, and the static rule answers then."""
        data = {"status": "draining" if drain.is_draining else "ready", "problems": service.problems()}
        return _json(data | {"policy_version": service.version}, 503 if drain.is_draining else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return the Prometheus metrics."""
        page = await asyncio.to_thread(service.page_of_metrics)
        return Response(page, media_type=CONTENT_TYPE_LATEST)
