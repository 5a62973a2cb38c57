"""Skipped updates are counted, saved and reported; too many in a row stop the run and name what was not finite."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.rllib import CONFIGS, restore, train
from agents.rllib.core.skipped_updates import SkippedUpdates, SkippedUpdatesError, find_fault
from benchmarks.cli.main import main
from benchmarks.training.run_log import read_lines
from marca_env.utils.errors import InputError
from tests.helpers.dice_runs import local_ray

GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"
SMALL = {"gru": None, "hidden": (8,), "updates_per_iteration": 4, "learning_starts": 8}


@pytest.fixture(scope="module", autouse=True)
def running_ray() -> Any:
    """Start a ray with two CPUs."""
    with local_ray(num_cpus=2):
        yield


def make_config(**options: Any) -> Any:
    """Configure QMIX on the two-step game with a learning rate that overflows at the second update."""
    config = CONFIGS["QMIX"]().environment(GAME).env_runners(num_envs_per_env_runner=8).debugging(seed=1)
    return config.training(**{**SMALL, "train_batch_size_per_learner": 8, "lr": 1e30, **options})


@pytest.mark.slow
@pytest.mark.parametrize("learners", [0, 1])
def test_skipped_updates_are_reported_and_stop_the_run(learners: int, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    config = make_config(max_skipped_updates=6).learners(num_learners=learners)
    with pytest.raises(SkippedUpdatesError) as stopped:
        train(config, stop={"training_iteration": 9}, out=tmp_path, checkpoint_freq=1, record=records.append)
    assert [r["skipped_updates"] for r in records] == [3, 7]  # the iteration that stops the run is reported, too
    assert records[-1]["gradient_steps"] == 8
    message = str(stopped.value)
    assert "7 updates in a row were skipped (max_skipped_updates = 6; 7 of 8 in all)" in message
    assert "loss is nan" in message
    assert "lower lr" in message
    assert "\n" not in message
    with pytest.raises(SkippedUpdatesError, match="7 updates in a row"):  # the checkpoint remembers
        train(None, resume=tmp_path)
    shutil.rmtree(tmp_path / "checkpoint_000002")
    algorithm = restore(tmp_path)
    algorithm.train()
    with pytest.raises(SkippedUpdatesError, match="7 of 8 in all"):  # the count went on from three
        algorithm.train()
    algorithm.stop()


def test_a_run_without_a_limit_goes_on(tmp_path: Path) -> None:
    algorithm, numbers = train(make_config(max_skipped_updates=None), stop={"training_iteration": 3})
    algorithm.stop()
    assert numbers["skipped_updates"] == 11
    with pytest.raises(InputError, match="max_skipped_updates is 0; use a whole number of at least 1"):
        make_config(max_skipped_updates=0).validate()


@pytest.mark.slow
def test_the_command_line_ends_with_one_line_and_a_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["gru=null", "hidden=[8]", "learning_starts=8", "lr=1e30"]
    assert main(["train", "--algo", "VDN", "--env", GAME, "--out", str(tmp_path), "--config", *options]) == 2
    assert "updates in a row were skipped" in capsys.readouterr().err.splitlines()[-1]
    assert read_lines(tmp_path)[-1]["skipped_updates"] >= 20
    assert "skipped_updates" in (tmp_path / "progress.csv").read_text().splitlines()[0]


def test_an_applied_update_ends_a_row() -> None:
    skipped = SkippedUpdates()
    for fault in ("a", "b", None, "c"):
        skipped.note(fault)
    assert (skipped.total, skipped.in_a_row, skipped.longest, skipped.fault) == (3, 1, 2, "c")
    assert SkippedUpdates(**skipped.state()) == skipped


def parameters(**changes: Any) -> list[tuple[str, torch.Tensor, torch.Tensor | None]]:
    weight, gradient = torch.ones(2), changes.get("gradient", torch.ones(2))
    return [("module.online.agents.1.head.weight", changes.get("weight", weight), gradient), ("mixer.b", weight, None)]


@pytest.mark.parametrize(
    ("batch", "losses", "changes", "expected"),
    [
        ({"reward": torch.tensor([[0.0, torch.inf]])}, {}, {}, "the minibatch has inf in reward (step 1)"),
        (
            {"obs:right%2Farm": torch.tensor([[[0.0, 1.0], [2.0, torch.nan]]])},
            {"loss": torch.tensor(torch.nan)},
            {},
            "the minibatch has nan in observations of agent 'right/arm' (step 1, column 1); correct the log",
        ),
        (
            {},
            {"loss": torch.tensor(torch.nan)},
            {"weight": torch.tensor([torch.inf, 0.0])},
            "the parameters agents.1.head.weight (agent 'b') are not finite; start again with a lower lr",
        ),
        ({}, {"mixer_loss": torch.tensor(torch.inf), "loss": torch.tensor(torch.inf)}, {}, "mixer loss is inf"),
        (
            {},
            {"loss": torch.tensor(1.0)},
            {"gradient": torch.tensor([torch.nan, 0.0])},
            "the gradient of agents.1.head.weight (agent 'b') is not finite",
        ),
        ({}, {}, {"gradient": torch.full((2,), 1e30)}, "the norm of the gradient overflows"),
    ],
)
def test_the_earliest_cause_is_named(
    batch: dict[str, Any], losses: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    assert find_fault(batch, losses, parameters(**changes), ("a", "b")).startswith(expected)


def test_a_gradient_whose_norm_overflows_is_skipped() -> None:
    """Clipping would divide it by infinity, and Adam would move the weights by its momentum alone."""
    algorithm = make_config(lr=1e-3, updates_per_iteration=1, reward_scale=1e-25, max_skipped_updates=None).build_algo()
    learner = algorithm.learner_group._learner
    before = {k: v.clone() for k, v in learner._team.online.state_dict().items()}
    for _ in range(2):
        algorithm.train()
    assert learner.skipped.total > 0
    assert all(torch.equal(v, before[k]) for k, v in learner._team.online.state_dict().items())
    algorithm.stop()
