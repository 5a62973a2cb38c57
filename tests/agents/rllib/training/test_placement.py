"""A resumed run may continue with other numbers of runners and learners."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.rllib import restore, train
from benchmarks.cli.main import main
from benchmarks.training.run_log import read_lines
from tests.helpers.dice_runs import learner_weights, local_ray, make_config, same, shown
from tests.helpers.restart_runs import run

pytestmark = pytest.mark.distributed

GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"


@pytest.fixture(scope="module", autouse=True)
def running_ray() -> Iterator[None]:
    """Start a ray with four CPUs."""
    with local_ray(num_cpus=4):
        yield


@pytest.fixture(scope="module")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run in one process, of three iterations."""
    folder = tmp_path_factory.mktemp("local")
    run(make_config(), 3, out=folder)
    return folder


@pytest.mark.slow
def test_one_runner_and_one_learner_continue_a_local_run_to_the_bit(local_run: Path, tmp_path: Path) -> None:
    """Also the learning rate, whose schedule falls between two iterations."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        shutil.copytree(local_run, folder)
    expected = run(None, 6, resume=here, out=here)
    placement = {"num_env_runners": 1, "num_learners": 1}
    state, numbers = run(None, 6, resume=there, out=there, placement=placement)
    assert state == expected[0]
    for name in ("env_steps", "episode_return_mean", "gradient_steps"):
        assert numbers["6"][name] == expected[1]["6"][name]


@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes, started three times
def test_more_processes_and_back(local_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(local_run, folder)
    more = {"num_env_runners": 2, "num_learners": 2}
    algorithm, numbers = train(None, stop={"training_iteration": 5}, resume=folder, out=folder, placement=more)
    assert same(*learner_weights(algorithm))
    assert len(shown(algorithm)) == 3 * 8 + 2 * 16
    algorithm.stop()
    assert numbers["env_steps"] == 2 * len(shown(algorithm))
    algorithm = restore(folder)  # the checkpoint remembers the change
    assert (algorithm.config.num_env_runners, algorithm.config.num_learners) == (2, 2)
    algorithm.stop()
    fewer = dict.fromkeys(more, 0)
    algorithm, numbers = train(None, stop={"training_iteration": 6}, resume=folder, out=folder, placement=fewer)
    algorithm.stop()
    assert numbers["gradient_steps"] == 6 * 2
    assert len(shown(algorithm)) == 3 * 8 + 2 * 16 + 8


@pytest.mark.slow
def test_ppo_continues_with_another_number_of_runners(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ["train_batch_size_per_learner=40", "minibatch_size=20", "num_epochs=1"]
    once = ["--stop", "training_iteration=2", "--out", str(tmp_path)]
    assert main(["train", "--algo", "PPO", "--env", GAME, "--config", *options, *once]) == 0
    more = ["--num-env-runners", "1", "--device", "cpu", "--stop", "training_iteration=3"]
    with caplog.at_level("WARNING", logger="agents"):
        assert main(["train", "--resume", str(tmp_path), *more]) == 0
    assert [r.getMessage() for r in caplog.records if "resumed" in r.getMessage()] == [
        "resumed with num_env_runners 0 → 1"
    ]
    assert [line["training_iteration"] for line in read_lines(tmp_path)] == [1, 2, 3]


def test_too_many_processes_are_refused(local_run: Path) -> None:
    from marca_env.utils.errors import InputError

    with pytest.raises(InputError, match="7 environment runners need 7 CPUs but ray has 4"):
        restore(local_run, {"num_env_runners": 7})
