"""SIGKILL at any moment loses only the iterations since the last intact checkpoint."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from agents.policy.checkpoints import checkpoints_in, newest_intact
from agents.rllib import train
from agents.rllib.training.algorithm_checkpoints import latest_checkpoint, restore
from marca_env.utils.errors import InputError
from tests.agents.rllib.training.test_training import PROGRAM
from tests.helpers.restart_runs import make_config, run

pytestmark = pytest.mark.usefixtures("one_cpu_ray")


def kill_one(folder: Path, moment: random.Random, *, writing: bool) -> tuple[int, int]:
    """Kill a run at a random moment or during a write; return its first and last reported iteration."""
    program = [sys.executable, str(PROGRAM), "forever", str(folder)]
    child = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        assert child.stdout is not None
        heard = [int(child.stdout.readline()) for _ in range(moment.randint(2, 6))]
        time.sleep(moment.uniform(0, 0.3))
        deadline = time.monotonic() + 20
        while writing and not any(folder.glob(".part-*/*")) and time.monotonic() < deadline:
            pass
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        heard += [int(line) for line in child.stdout.read().split()]
    finally:
        child.kill()
        child.wait()
    return heard[0], heard[-1]


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_newest_checkpoint(tmp_path: Path) -> None:
    folder, moment, done, halves = tmp_path / "run", random.Random(1), 0, 0
    for writing in (False, True):
        first, last = kill_one(folder, moment, writing=writing)
        assert first == done + 1
        newest, damaged = newest_intact(folder)
        done = int(newest.name[-6:])
        assert not damaged
        assert last - 1 <= done <= last
        halves += any(folder.glob(".part-*"))
    assert halves > 0
    assert len(checkpoints_in(folder)) <= 4  # keep=3, and one more if it was killed before it deleted old ones
    resumed, _ = run(None, done + 2, resume=folder, out=folder)
    assert not any(folder.glob(".part-*"))
    assert resumed == run(make_config("dropout"), done + 2)[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run with checkpoints after 3 and 6 iterations."""
    folder = tmp_path_factory.mktemp("finished")
    run(make_config("dropout"), 6, out=folder, checkpoint_freq=3)
    return folder


@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped_with_one_warning(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(finished, folder)
    expected = run(None, 6, resume=folder, out=tmp_path / "other")
    (state,) = (folder / "checkpoint_000006").glob("algorithm_state.pkl")
    os.truncate(state, state.stat().st_size // 2)
    with caplog.at_level(logging.WARNING, logger="agents"):
        again = run(None, 6, resume=folder, out=folder)
    warnings = [r.getMessage() for r in caplog.records if r.name.startswith("agents")]
    assert len(warnings) == 1
    assert "checkpoint_000006: algorithm_state.pkl has" in warnings[0]
    assert "using checkpoint_000003" in warnings[0]
    assert sorted(again[1]) == ["4", "5", "6"]
    assert again[0] == expected[0]
    assert newest_intact(folder)[0].name == "checkpoint_000006"  # the damaged one was replaced


def test_a_damaged_checkpoint_is_refused_if_it_is_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "checkpoint_000003", tmp_path / "checkpoint_000003")
    os.truncate(tmp_path / "checkpoint_000003" / "learner_group" / "learner" / "state.pkl", 10)
    with pytest.raises(InputError, match=r"damaged, learner_group/learner/state\.pkl has 10 bytes"):
        restore(tmp_path / "checkpoint_000003")


@pytest.mark.slow
def test_a_finished_run_continues_only_with_a_raised_limit(finished: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    algorithm, numbers = train(None, stop={"env_steps": 6 * 16}, resume=finished, out=finished)
    algorithm.stop()
    assert numbers["training_iteration"] == 6
    assert numbers["env_steps"] == 96
    assert "loss" in numbers
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before  # nothing was run and nothing written
    algorithm, numbers = train(None, stop={"env_steps": 7 * 16}, resume=finished, out=tmp_path / "new")
    algorithm.stop()
    assert numbers["training_iteration"] == 7
    assert latest_checkpoint(tmp_path / "new").name == "checkpoint_000007"


def test_resuming_an_old_checkpoint_among_newer_ones_is_refused(finished: Path) -> None:
    with pytest.raises(InputError, match="newer than checkpoint_000003"):
        train(None, stop={"training_iteration": 9}, resume=finished / "checkpoint_000003", out=finished)


def test_a_live_algorithm_can_restore_an_earlier_checkpoint(finished: Path) -> None:
    """The learner and the runner take the weights of the earlier checkpoint."""
    algorithm = restore(finished / "checkpoint_000006")
    algorithm.restore_from_path(str(finished / "checkpoint_000003"))
    runner = algorithm.env_runner.module.state_dict()
    online = algorithm.learner_group._learner._team.state_dict()
    fresh = restore(finished / "checkpoint_000003")
    for name, tensor in fresh.learner_group._learner._team.state_dict().items():
        assert torch.equal(online[name], tensor)
    assert all(torch.equal(tensor, online[name]) for name, tensor in runner.items())
    algorithm.stop()
    fresh.stop()
