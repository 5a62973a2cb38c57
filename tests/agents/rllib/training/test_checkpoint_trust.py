"""Checkpoints of others: their pickles run only if they are trusted, and an evaluation of a preset reads none."""

from __future__ import annotations

import json
import os
import pickle
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.policy.checkpoints import MANIFEST, seal
from agents.policy.trust import KEY_VARIABLE
from agents.rllib import CheckpointPlayer, independent, restore, train
from agents.rllib.training.algorithm_checkpoints import saved_config
from benchmarks.cli.main import main
from marca_env.utils.errors import InputError

GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"
ONCE = {"training_iteration": 1}


class Payload:
    """Object whose unpickling leaves a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, one_cpu_ray: None) -> Path:
    """Runs of a preset and of PPO, each of one iteration."""
    from ray.rllib.algorithms.ppo import PPOConfig

    from agents.rllib import VDNConfig

    folder = tmp_path_factory.mktemp("runs")
    preset = VDNConfig().environment(GAME)
    preset.training(gru=None, hidden=(8,), learning_starts=64, updates_per_iteration=2)
    ppo = independent(PPOConfig(), GAME, {})
    ppo.training(train_batch_size_per_learner=40, minibatch_size=20, num_epochs=1)
    ppo.rl_module(model_config={"fcnet_hiddens": [8]}).env_runners(num_env_runners=0)
    for name, config in (("vdn", preset), ("ppo", ppo)):
        algorithm, _ = train(config.debugging(seed=0), stop=ONCE, out=folder / name)
        algorithm.stop()
    return folder


@pytest.fixture
def foreign(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same runs, with a payload in every pickle, signed by another user."""
    folder = tmp_path / "foreign"
    shutil.copytree(runs, folder)
    with monkeypatch.context() as patch:
        patch.setenv(KEY_VARIABLE, str(tmp_path / "other.key"))
        for checkpoint in folder.glob("*/checkpoint_*"):
            for path in checkpoint.rglob("*.pkl"):
                path.write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
            (checkpoint / MANIFEST).unlink()
            seal(checkpoint)
    yield folder
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
def test_runs_of_others_are_not_unpickled(foreign: Path) -> None:
    for name in ("vdn", "ppo"):
        (checkpoint,) = (foreign / name).glob("checkpoint_*")
        for load in (restore, saved_config, lambda path: train(None, stop={"training_iteration": 2}, resume=path)):
            with pytest.raises(InputError) as error:
                load(checkpoint)
            assert "not signed with your key" in str(error.value)
            assert "executes the code" in str(error.value)
            assert "--trust (in Python: trust=True)" in str(error.value)
    with pytest.raises(InputError, match="not signed with your key"):
        CheckpointPlayer(foreign / "ppo")


@pytest.mark.slow
def test_an_evaluation_of_a_preset_reads_no_pickle(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody else's run names an environment by its path, which is allowed by name or given."""
    with pytest.raises(InputError, match=rf"names the code '{GAME}', .* --allow-code {GAME}"):
        CheckpointPlayer(foreign / "vdn")
    for options in ({"allow_code": [GAME]}, {"env": GAME}, {"trust": True}):
        assert len(CheckpointPlayer(foreign / "vdn", **options).play(3).returns) == 3  # type: ignore[arg-type]
    capsys.readouterr()
    assert main(["evaluate", str(foreign / "vdn"), "--episodes", "2"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["evaluate", str(foreign / "vdn"), "--episodes", "2", "--allow-code", GAME]) == 0


@pytest.mark.slow
def test_the_command_refuses_without_a_terminal(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["train", "--resume", str(foreign / "vdn"), "--stop", "training_iteration=2"],
        ["evaluate", str(foreign / "ppo")],
    ):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("marca: error: ")
        assert "pass --trust" in line


@pytest.mark.slow
def test_own_runs_need_nothing_and_runs_of_others_their_trust(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vdn", "ppo"):
        assert len(CheckpointPlayer(runs / name).play(2).returns) == 2
    shutil.copytree(runs / "vdn", tmp_path / "vdn")
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "other.key"))
    with pytest.raises(InputError, match="not signed"):
        restore(tmp_path / "vdn")
    limit = {"training_iteration": 2}
    algorithm, numbers = train(None, resume=tmp_path / "vdn", out=tmp_path / "vdn", stop=limit, trust=True)
    algorithm.stop()
    assert numbers["training_iteration"] == 2
    restore(tmp_path / "vdn").stop()  # what this user continued is the user's
    assert len(CheckpointPlayer(runs / "ppo", trust=True).play(2).returns) == 2


@pytest.mark.slow
def test_a_changed_pickle_in_a_run_of_mine_is_not_executed(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "vdn", tmp_path / "vdn")
    (checkpoint,) = (tmp_path / "vdn").glob("checkpoint_*")
    path = checkpoint / "class_and_ctor_args.pkl"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    with pytest.raises(InputError, match="damaged"):
        restore(checkpoint)
    with pytest.raises(InputError, match="not signed"):
        saved_config(checkpoint)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).unlink()  # whoever can change a file can change its sum, but not the signature
    seal(checkpoint)
    sums = json.loads((checkpoint / MANIFEST).read_text())["files"]
    (checkpoint / MANIFEST).write_text(json.dumps({"files": sums, "signature": manifest["signature"]}))
    with pytest.raises(InputError, match="not signed"):
        restore(checkpoint)
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 2)])
def test_the_command_asks_once_on_a_terminal(answer: str, status: int, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "vdn", tmp_path / "vdn")
    command = [sys.executable, "-m", "benchmarks.cli", "train", "--resume", str(tmp_path / "vdn")]
    command += ["--stop", "training_iteration=2"]
    leader, terminal = pty.openpty()
    environment = {**os.environ, KEY_VARIABLE: str(tmp_path / "other.key")}
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = read_until(leader, "[y/N] ")
        os.write(leader, f"{answer}\n".encode())
        shown += read_until(leader, None)
    assert process.returncode == status
    assert shown.count("[y/N]") == 1
    assert "executes the code in its pickles" in shown
    assert len(list((tmp_path / "vdn").glob("checkpoint_*"))) == (2 if status == 0 else 1)


def read_until(descriptor: int, text: str | None, seconds: float = 240) -> str:
    """Return what a terminal shows until a text, or until its program ends."""
    shown, end = "", time.monotonic() + seconds
    while time.monotonic() < end and (text is None or text not in shown):
        if select.select([descriptor], [], [], 1)[0]:
            try:
                part = os.read(descriptor, 4096)
            except OSError:  # the program has ended
                break
            shown += part.decode(errors="replace")
    return shown
