"""A day decided over HTTP equals the same day in one process: same requests, same prices, same revenue."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.serving.app import create_app
from benchmarks.serving.controller_loop import ControllerLoop
from benchmarks.serving.modes import Mode
from benchmarks.serving.plain_client import PlainClient
from benchmarks.serving.replay_day import main
from benchmarks.serving.served_day import MEASURED, METRICS, InProcessPolicy, ScaledDay, ServedPolicy
from benchmarks.serving.shared_state import PRICES, TELEMETRY, SharedPriceBoard, TelemetrySpool
from marca_env.models.engine import get_engine
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.day_simulator import replay
from marca_env.traffic.workload import Traffic
from marca_env.utils.errors import InputError
from mpc import FeedbackBalancer, FeedbackSettings
from tests.helpers.decision_server import running, service_of

EACH = 800
"""Requests that each sent one stands for."""
COLUMNS = ["revenue", "load_retrieval", "load_ranking", "price_retrieval", "price_ranking"]


def balancer() -> FeedbackBalancer:
    return FeedbackBalancer(FeedbackSettings(scale=(20.0, 5.0)))


@pytest.fixture(scope="module")
def pool() -> RequestPool:
    return get_engine("default").pool(40, seed=5)


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic("ramp", np.array([1800.0, 2000.0, 0.0, 2600.0, 2400.0]), first_minute=1438)


@contextlib.contextmanager
def server(policy: AllocationPolicy, folder: Path, mode: Mode) -> Iterator[PlainClient]:
    """Yield a client of a server in a thread, with a controller on the same folder in another one."""
    scenario, stop = policy.scenario, threading.Event()
    names, budgets = scenario.cluster_names, scenario.budgets.tolist()
    spool = TelemetrySpool(folder / TELEMETRY, names, budgets)
    board = SharedPriceBoard(folder / PRICES, names)
    loop = ControllerLoop(balancer(), spool, board, 600.0, budgets=budgets)
    controller = threading.Thread(target=loop.run, args=(stop,))
    with running(create_app(service_of(policy, state=folder, mode=mode, seconds=10.0))) as url:
        controller.start()
        try:
            yield PlainClient(url)
        finally:
            stop.set()
            controller.join()


def play(policy: AllocationPolicy, pool: RequestPool, traffic: Traffic, folder: Path, telemetry: str, mode: Mode):
    """Return the minutes over HTTP, those in process, and what the client saw."""
    day = ScaledDay.draw(pool, traffic, EACH, seed=1)
    values, costs = policy.values(pool.states), policy.costs(pool.states)
    one, start = (InProcessPolicy(day, telemetry, "one", values, costs, balancer()) for _ in range(2))
    with server(policy, folder, mode) as client:
        served = ServedPolicy(client, start, pool, day, telemetry, batch=60)
        over_http = replay(served, pool, traffic, day.arrivals)
        client.close()
    return over_http, replay(one, pool, traffic, day.arrivals), served.counts


@pytest.mark.parametrize("telemetry", [METRICS, MEASURED])
def test_a_day_over_http_equals_the_day_in_process(policy, pool, traffic, tmp_path, telemetry):
    over_http, in_process, counts = play(policy, pool, traffic, tmp_path, telemetry, Mode("enforce"))
    np.testing.assert_allclose(over_http[COLUMNS], in_process[COLUMNS], rtol=1e-6)
    assert len(over_http[["price_retrieval", "price_ranking"]].drop_duplicates()) > 2  # the controller has set them
    assert set(counts.statuses) == {"ok"}
    assert (counts.unanswered, counts.divided, counts.other_prices) == (0, 0, 0)


def test_the_static_action_shows_in_the_day(policy, pool, traffic, tmp_path):
    over_http, in_process, counts = play(policy, pool, traffic, tmp_path, METRICS, Mode("static"))
    assert over_http["revenue"].sum() != pytest.approx(in_process["revenue"].sum(), rel=1e-3)
    assert counts.divided == 0


def test_without_a_controller_the_client_says_what_to_check(policy):
    with running(create_app(service_of(policy))) as url, pytest.raises(InputError, match="check that `marca control`"):
        PlainClient(url).wait_for_version(2, seconds=0.05)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--policy", "none"], "none"),
        (["--policy", "none", "--each", "0"], "--each is 0"),
        (["--policy", "none", "--batch", "0"], "--batch is 0"),
        (["--policy", "none", "--seed", "-1"], "--seed"),
    ],
)
def test_wrong_options_are_one_line(options, part, capsys):
    assert main(options) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1
