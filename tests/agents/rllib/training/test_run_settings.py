"""Settings that a run remembers, and where a resumed run may continue."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.rllib import CONFIGS, train
from agents.rllib.training.algorithm_checkpoints import restore, saved_config
from agents.rllib.training.placement import place
from agents.rllib.training.run_settings import RunSettings, remembered_settings
from marca_env.utils.errors import InputError
from tests.helpers.restart_runs import make_config, run

pytestmark = pytest.mark.usefixtures("one_cpu_ray")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of four iterations with a checkpoint at every second one."""
    folder = tmp_path_factory.mktemp("finished")
    run(make_config("dropout"), 4, out=folder, checkpoint_freq=2, keep=3)
    return folder


def test_a_bare_resume_keeps_all_settings_and_given_ones_replace_them(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    expected = RunSettings({"training_iteration": 4}, checkpoint_freq=2, keep=3)
    assert remembered_settings(folder) == remembered_settings(folder / "checkpoint_000004") == expected
    algorithm, numbers = train(None, stop={"training_iteration": 7}, resume=folder, out=folder, keep=2)
    algorithm.stop()
    assert numbers["training_iteration"] == 7
    assert sorted(p.name for p in folder.glob("checkpoint_*")) == ["checkpoint_000006", "checkpoint_000007"]
    changed = RunSettings({"training_iteration": 7}, checkpoint_freq=2, keep=2)
    assert remembered_settings(folder) == changed
    shutil.copytree(folder / "checkpoint_000006", tmp_path / "elsewhere" / "checkpoint_000006")
    assert remembered_settings(tmp_path / "elsewhere") == changed  # a checkpoint alone has them, too
    algorithm, numbers = train(None, resume=tmp_path / "elsewhere", out=tmp_path / "elsewhere")
    algorithm.stop()
    assert numbers["training_iteration"] == 7


def test_limits_given_on_resume_are_remembered_before_the_first_iteration(finished: Path, tmp_path: Path) -> None:
    """A run that is killed at once after its resume continues to the new limit."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)

    def kill(_algorithm: Any) -> None:
        raise KeyboardInterrupt

    algorithm, _ = train(None, stop={"training_iteration": 9}, resume=folder, out=folder, begin=kill)
    algorithm.stop()
    assert remembered_settings(folder).stop == {"training_iteration": 9}


def test_a_run_without_limits_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no stopping criterion"):
        train(make_config("dropout"))
    shutil.copytree(finished / "checkpoint_000004", tmp_path / "checkpoint_000004")
    (tmp_path / "checkpoint_000004" / "run.json").write_text('{"stop"')
    with pytest.raises(InputError, match=r"run\.json: damaged"):
        remembered_settings(tmp_path / "checkpoint_000004")


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_finishes_the_iteration(presses: int, tmp_path: Path) -> None:
    """After one Ctrl-C the checkpoint has whole iterations: a resumed run equals an uninterrupted one."""
    config = make_config("dropout")
    base = config.algo_class

    class Pressed(base):  # type: ignore[misc, valid-type]
        def _learn(self) -> None:
            if self.iteration == 4:
                for _ in range(presses):
                    os.kill(os.getpid(), signal.SIGINT)
            super()._learn()

    config.algo_class = Pressed
    algorithm, numbers = train(config, stop={"training_iteration": 8}, out=tmp_path / "run")
    algorithm.stop()
    assert numbers["interrupted"]
    assert algorithm.iteration == (5 if presses == 1 else 4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if presses == 1:
        monkey = saved_config(tmp_path / "run" / "checkpoint_000005")
        assert monkey.seed == 5
        resumed = run(None, 8, resume=tmp_path / "run", out=tmp_path / "run")
        assert resumed[0] == run(make_config("dropout"), 8)[0]


def test_a_placement_without_resume_or_of_other_settings_is_refused(finished: Path) -> None:
    with pytest.raises(InputError, match="placement changes a resumed run"):
        train(make_config("dropout"), stop={"training_iteration": 1}, placement={"num_learners": 1})
    with pytest.raises(InputError, match="unknown setting to change on resume 'num_env_runner'; did you mean"):
        restore(finished, {"num_env_runner": 1})
    with pytest.raises(InputError, match="num_learners is -1"):
        restore(finished, {"num_learners": -1})


@pytest.mark.parametrize(
    ("before", "changes", "words"),
    [
        ({}, {"num_env_runners": 2}, ["num_env_runners 0 → 2", "plays 128 episodes instead of 64"]),
        ({}, {"num_learners": 2}, ["num_learners 0 → 2", "learns from 512 episodes instead of 256"]),
        ({"num_learners": 1, "num_gpus_per_learner": 1}, {"num_gpus_per_learner": 0}, ["num_gpus_per_learner 1 → 0"]),
        ({}, {"num_env_runners": 1, "num_learners": 1}, []),
        ({"num_env_runners": 2}, {"num_env_runners": 2}, []),
    ],
    ids=str,
)
def test_a_change_that_is_not_equal_to_the_bit_is_said(
    before: dict[str, int], changes: dict[str, int], words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = CONFIGS["QMIX"]()
    for name, value in before.items():
        setattr(config, name, value)
    with caplog.at_level(logging.WARNING, logger="agents"):
        place(config, changes)
    messages = [r.getMessage() for r in caplog.records]
    assert len(messages) == bool(words)
    for word in [*words, "no longer equal to the bit"] if words else []:
        assert word in messages[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_missing_is_named_in_one_line(finished: Path) -> None:
    with pytest.raises(InputError, match="device 'cuda' cannot be used here") as refused:
        restore(finished, {"num_gpus_per_learner": 1})
    assert "\n" not in str(refused.value)
    config = CONFIGS["QMIX"]().learners(num_gpus_per_learner=1)
    with pytest.raises(InputError, match=r"the run learnt on a GPU, and this machine has none.*pass --device cpu"):
        place(config, {})
    assert place(config, {"num_gpus_per_learner": 0}).num_gpus_per_learner == 0


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for inner in values for tensor in _tensors(inner)]


def test_a_checkpoint_has_no_tensors_of_a_device(finished: Path) -> None:
    """A checkpoint of a GPU can be read without one: arrays instead of tensors in every state."""
    states = [p for p in (finished / "checkpoint_000004").rglob("*.pkl") if "class_and_ctor" not in p.name]
    assert len(states) > 3
    for path in states:
        with path.open("rb") as file:
            assert _tensors(pickle.load(file)) == [], path


def test_numbers_of_a_finished_run_are_beside_its_settings(finished: Path) -> None:
    assert json.loads((finished / "run.json").read_text())["stop"] == {"training_iteration": 4}
