"""SIGKILL of ``marca train`` in the middle of a gradient step: the resumed run equals an uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents.policy.checkpoints import checkpoints_in
from agents.rllib import restore
from benchmarks.cli.main import main
from benchmarks.training.run_log import read_lines
from marca_env.logs.log_files import write_request_log
from marca_env.scenario.scenario import Scenario
from tests.helpers.dice_runs import local_ray
from tests.helpers.paths import ROOT
from tests.helpers.restart_runs import TIMES, fingerprint

pytestmark = pytest.mark.distributed

HELD = "tests.helpers.held_learners"
GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"
SMALL = ["--config", "hidden=[8]", "updates_per_iteration=3", "train_batch_size_per_learner=8"]
ONLINE = [*SMALL, "gru=4", "learning_starts=16", "num_envs_per_env_runner=8", "target_update=4"]
PPO = ["--num-env-runners", "0", "--config", "train_batch_size_per_learner=64", "minibatch_size=32", "num_epochs=2"]
CASES = {
    "online": ["--algo", f"{HELD}.HeldQMIX", "--env", GAME, *ONLINE],
    "two runners": ["--algo", f"{HELD}.HeldQMIX", "--env", GAME, *ONLINE, "--num-env-runners", "2"],
    "one learner process": ["--algo", f"{HELD}.HeldQMIX", "--env", GAME, *ONLINE, "--num-learners", "1"],
    "log": ["--algo", f"{HELD}.HeldAWRQMixer", *SMALL, "gru=4", "heads=2", "dropout=0.2", "target_update=4"],
    "PPO": ["--algo", f"{HELD}.HeldPPO", "--env", GAME, *PPO, 'model_config={"fcnet_hiddens": [8]}'],
}
"""Small runs of every kind."""
LAST = 7
"""Iterations of a run; it is killed in the sixth. Checkpoints are written at every second one."""


@pytest.fixture(scope="module", autouse=True)
def running_ray() -> Iterator[None]:
    """Start a ray for the runs in this process."""
    with local_ray(num_cpus=4):
        yield


def command(case: str, out: Path, log: list[str]) -> list[str]:
    """Return the arguments of a run."""
    length = ["--stop", f"training_iteration={LAST}", "--checkpoint-freq", "2", "--seed", "3", "--out", str(out)]
    return ["train", *CASES[case], *(log if case == "log" else []), *length]


def kill_in_an_update(arguments: list[str], marker: Path) -> None:
    """Run a command until an update of the sixth iteration is half done, and kill it."""
    environment = os.environ | {"HELD_UPDATE": str(marker), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.cli", *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 300
            while not marker.exists():
                assert process.poll() is None, "the run ended before it was killed"
                assert time.monotonic() < deadline
                time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL


def numbers_of(out: Path) -> list[dict[str, Any]]:
    """Return the metrics of every iteration that are not times."""
    return [{k: v for k, v in line.items() if not any(t in k for t in TIMES)} for line in read_lines(out)]


@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes, started twice
@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_in_an_update_resumes(
    case: str, tmp_path: Path, tiny_scenario: Scenario, tiny_requests: pd.DataFrame
) -> None:
    """To the bit: weights, targets, optimizer, buffer, counters and metrics; RLlib's PPO only continues."""
    tiny_scenario.save(tmp_path / "tiny.yaml")
    write_request_log(tiny_requests, tmp_path / "requests.parquet", tiny_scenario)
    log = ["--offline", str(tmp_path / "requests.parquet"), "--scenario", str(tmp_path / "tiny.yaml")]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_in_an_update(command(case, killed, log), tmp_path / "marker")
    assert (tmp_path / "marker").read_text() != ""
    assert [p.name[-1] for p in checkpoints_in(killed)] == ["2", "4"]
    assert [line["training_iteration"] for line in read_lines(killed)] == [1, 2, 3, 4, 5]
    assert main(["train", "--resume", str(killed)]) == 0
    lines = numbers_of(killed)
    assert [line["training_iteration"] for line in lines] == list(range(1, LAST + 1))
    if case == "PPO":
        assert all(np.isfinite(line["loss"]) for line in lines)
        assert lines[-1]["env_steps"] == pytest.approx(lines[3]["env_steps"] * LAST / 4, rel=0.1)
        return
    assert main(command(case, whole, log)) == 0
    states = []
    for out in (killed, whole):
        algorithm = restore(out)
        states.append(fingerprint(algorithm))
        algorithm.stop()
    assert states[0] == states[1]
    assert lines == numbers_of(whole)
    assert lines[-1]["gradient_steps"] >= 9
