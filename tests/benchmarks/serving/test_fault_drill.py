"""Faults under load, on a server and a controller in threads: nothing is unanswered, every fallback is counted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.serving.app import create_app
from benchmarks.serving.controller_loop import ControllerLoop
from benchmarks.serving.drill_traffic import GARBAGE, Load, TelemetrySender
from benchmarks.serving.fault_drill import Drill, growth, kill_controller, main, malformed, silence
from benchmarks.serving.processes import MarcaProcess
from benchmarks.serving.shared_state import CONTROLLER, PRICES, TELEMETRY, SharedPriceBoard, TelemetrySpool
from benchmarks.serving.telemetry import parse_telemetry
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from mpc import FeedbackBalancer, FeedbackSettings
from tests.helpers.decision_server import running, service_of

MINUTE = 0.04


class ThreadController:
    """A controller in a thread; killed, it stops without a word."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        names, budgets = scenario.cluster_names, scenario.budgets.tolist()
        spool = TelemetrySpool(folder / TELEMETRY, names, budgets)
        balancer = FeedbackBalancer(FeedbackSettings(scale=(1.0,) * len(names)))
        board, file = SharedPriceBoard(folder / PRICES, names), folder / CONTROLLER
        loop = ControllerLoop(balancer, spool, board, MINUTE, budgets=budgets, state_file=file)
        loop.restore()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=loop.run, args=(self._stop,))
        self._thread.start()

    def kill(self) -> None:
        self._stop.set()
        self._thread.join()


@contextlib.contextmanager
def drill_of(policy: AllocationPolicy, folder: Path) -> Iterator[Drill]:
    service = service_of(policy, state=folder, seconds=10.0)
    service.board.fresh_seconds, service.board.hold_seconds = 0.5, 0.3
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running(create_app(service)))
        load = stack.enter_context(Load(url, policy.scenario, clients=2, rate=25.0))
        telemetry = stack.enter_context(TelemetrySender(url, policy.scenario, MINUTE))
        start: Any = lambda: ThreadController(policy.scenario, folder)  # noqa: E731
        drill = Drill(url, load, telemetry, start, cast("MarcaProcess", None), folder, MINUTE)
        stack.callback(lambda: drill.controller.kill())
        drill.wait_until_fresh()
        yield drill


@pytest.mark.parametrize("fault", [kill_controller, silence, malformed], ids=lambda fault: fault.__name__)
def test_nothing_is_unanswered_and_every_fallback_is_counted(fault, policy, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.serving.fault_drill._SHORT", 0.2)
    with drill_of(policy, tmp_path) as drill:
        result = drill.run("it", fault)
    assert result.problems == []
    assert result.seen.sent > result.seen.statuses["ok"] > 0
    assert (result.seen.unanswered, result.seen.fallbacks) == (0, result.counted)


def test_a_fallback_that_is_not_counted_is_a_problem(policy, tmp_path):
    def uncounted(drill: Drill) -> str:
        drill.load.malformed = 1.0
        drill.wait(lambda seen: bool(seen.fallbacks), "a fallback", 10.0)
        drill.load.malformed = 0.0
        with drill.load._lock:
            drill.load._seen.statuses["wrong-type"] += 1
        return ""

    with drill_of(policy, tmp_path) as drill:
        assert any("clients saw" in problem for problem in drill.run("it", uncounted).problems)


@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_is_no_reading(body):
    with pytest.raises(InputError):
        parse_telemetry(body, ("retrieval", "ranking"), (1.0, 1.0))


def test_growth_leaves_out_what_has_not_grown():
    before = {("a", "x"): 1.0, ("a", "y"): 2.0, ("b", "x"): 1.0}
    assert growth(before, {("a", "x"): 4.0, ("a", "y"): 2.0, ("a", "z"): 1.0, ("b", "x"): 9.0}, "a") == {"x": 3, "z": 1}


def test_wrong_options_are_one_line(capsys):
    assert main(["--policy", "none"]) == 2
    assert "none" in capsys.readouterr().err
    assert main(["--policy", "none", "--minute", "0"]) == 2
    assert "--minute is 0" in capsys.readouterr().err
