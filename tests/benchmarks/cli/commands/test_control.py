"""`marca control` as a process: it follows the telemetry of a folder, is killed, and continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.cli.main import main
from benchmarks.serving.shared_state import CONTROLLER, PRICES, TELEMETRY, TelemetrySpool
from benchmarks.serving.telemetry import TelemetryReading
from marca_env import Scenario


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--balancer", "feedbak"], "did you mean 'feedback'"),
        (["--balancer", "mpc"], "give --model DIR"),
        (["--period", "0"], "--period is 0"),
        (["--telemetry", "nowhere.yaml"], "nowhere.yaml: no such telemetry file"),
        (["--scenario", "nowhere"], "nowhere"),
        (["--balancer", "mpc", "--model", "nowhere"], "nowhere"),
    ],
)
def test_wrong_options_are_one_line(arguments, words, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["control", "--state", "state", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_killed_controller_continues_with_its_version_and_memory(tmp_path: Path) -> None:
    scenario = Scenario.load("stages-3-v0")
    budgets = scenario.budgets.tolist()
    spool = TelemetrySpool(tmp_path / TELEMETRY, scenario.cluster_names, budgets)

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "benchmarks.cli", "control", "--state", str(tmp_path)]
        command += ["--scenario", "stages-3-v0", "--balancer", "primal-dual", "--period", "30"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
        assert process.stdout is not None
        assert "primal-dual for" in process.stdout.readline()
        return process

    def post(minute: int, share: float = 1.2) -> dict:
        load = tuple(share * budget for budget in budgets)
        spool.post(TelemetryReading(minute, "value", 100.0, load))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            state = json.loads(path.read_text()) if (path := tmp_path / CONTROLLER).exists() else {}
            if state.get("minute") == minute:
                return json.loads((tmp_path / PRICES).read_text())
            time.sleep(0.05)
        raise AssertionError("the controller has not answered")

    process = start()
    before = post(600)
    assert before["version"] == 1
    assert all(price > 0 for price in before["prices"])
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    spool.post(TelemetryReading(601, "value", 100.0, tuple(1.2 * b for b in budgets)))  # nobody listens
    process = start()
    after = post(602)
    assert after["version"] == 3
    assert all(a > b for a, b in zip(after["prices"], before["prices"], strict=True))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
