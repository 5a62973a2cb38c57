"""A decision server that runs in a thread on loopback, and a plain client."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.serving.decider import Decider
from benchmarks.serving.prices import PriceBoard
from benchmarks.serving.service import DecisionService
from benchmarks.serving.shared_state import PRICES as PRICES_FILE
from benchmarks.serving.shared_state import SharedPriceBoard
from benchmarks.serving.static_rule import StaticRule
from tests.helpers.paths import ROOT

GOOD = {"uv": 1, "w": 2, "g": 0, "i": 1, "history": 3}
"""A request of the default scenario, in codes."""
STATIC = StaticRule((0, 0, 0, 0, 0), 0.1, (0.001, 0.001))
PRICES = {"retrieval": 5.0, "ranking": 1.0}


class FaultyPolicy(AllocationPolicy):
    """A real policy whose model fails for the users of one group, such as after a damaged update."""

    def decide_with_estimates(self, states: Any, prices: Any, fixed: Any) -> Any:
        """Raise if a state has g = 3."""
        if (states[:, 2] == 3).any():
            raise RuntimeError("the model is damaged\nin its second layer")
        return super().decide_with_estimates(states, prices, fixed)


class SlowPolicy(AllocationPolicy):
    """A real policy on a slow machine."""

    seconds = 0.3

    def decide_with_estimates(self, states: Any, prices: Any, fixed: Any) -> Any:
        """Sleep first."""
        time.sleep(self.seconds)
        return super().decide_with_estimates(states, prices, fixed)


def service_of(policy: AllocationPolicy, **options: Any) -> DecisionService:
    """Return a service with prices; on a busy machine a decision may take long, so its time is not short."""
    options = {"seconds": 10.0} | options
    clusters, state = policy.scenario.cluster_names, options.get("state")
    board = PriceBoard(clusters) if state is None else SharedPriceBoard(Path(state) / PRICES_FILE, clusters)
    service = DecisionService(Decider(policy, policy.scenario, STATIC), board, **options)
    if board.latest is None:
        service.set_prices(PRICES)
    return service


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve an application on a free port of loopback; yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def call(url: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Return status and JSON of an answer; its text where it is no JSON."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def decide(url: str, *requests: Any) -> dict[str, Any]:
    """Return the answer of /decide."""
    status, answer = call(f"{url}/decide", "POST", {"requests": list(requests)})
    assert status == 200, answer
    return dict(answer)


@contextlib.contextmanager
def served_process(*options: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield address and process of a server that is ready; stop it with SIGTERM."""
    command = [sys.executable, "-m", "benchmarks.cli", "serve", "--port", "0", "--static", "0,0,0,0,0"]
    process = subprocess.Popen(
        [*command, *map(str, options)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        match = next((found for line in lines if (found := re.search(r"http://[\w.:]+\d", line))), None)
        assert match, "the server ended"
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                if call(f"{match[0]}/readyz")[0] == 200:
                    break
            time.sleep(0.05)
        yield match[0], process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
