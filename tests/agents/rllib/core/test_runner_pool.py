"""Remote runners and learners: exact results where possible, and recovery from crashes."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.policy.checkpoints import iteration_of, newest_checkpoint
from agents.rllib.core.runner import TeamEnvRunner
from agents.rllib.core.runner_pool import SamplingError
from agents.rllib.training.algorithm_checkpoints import save_checkpoint
from agents.rllib.training.training import train
from marca_env.utils.errors import InputError
from tests.helpers.dice_runs import DICE, learner_weights, local_ray, make_config, same, shown
from tests.helpers.restart_runs import run
from tests.helpers.rllib_envs import Dice

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module", autouse=True)
def running_ray() -> Iterator[None]:
    """Start a ray with eight CPUs."""
    with local_ray(num_cpus=8):
        yield


@pytest.mark.slow
def test_two_runners_and_two_learners_survive_a_crash_and_a_restore(tmp_path: Path) -> None:
    config = make_config(2, 2).training(epsilon=1.0)
    algorithm = config.build_algo()
    try:
        for _ in range(2):
            algorithm.train()
        local = [TeamEnvRunner(config=algorithm.config, worker_index=w) for w in (1, 2)]
        expected = []
        for number in (1, 2):
            for runner in local:
                runner.begin_round(number, env_steps=0)
                expected.append(runner.sample()[0].columns["state"][:, 0])
        assert np.array_equal(shown(algorithm), np.concatenate(expected))

        first, second = learner_weights(algorithm)
        assert same(first, second)
        checkpoint = save_checkpoint(algorithm, tmp_path)

        processes = algorithm.env_runner_group.foreach_env_runner(lambda r: os.getpid(), local_env_runner=False)
        os.kill(processes[0], signal.SIGKILL)
        before, collected, deadline = len(shown(algorithm)), [], time.monotonic() + 240
        while algorithm.env_runner_group.num_healthy_remote_workers() < 2 or len(collected) < 3:
            assert time.monotonic() < deadline
            algorithm.train()
            collected.append(len(shown(algorithm)) - before)
            before = len(shown(algorithm))
        algorithm.train()
        assert collected[0] == 8  # the other runner continued alone without delay
        assert len(shown(algorithm)) - before == 16  # both work again
        assert len(np.unique(shown(algorithm), axis=0)) == len(shown(algorithm))  # no episode is repeated
        new = algorithm.env_runner_group.foreach_env_runner(lambda r: r.module.state_dict(), local_env_runner=False)
        now = learner_weights(algorithm)
        assert same(*now)
        for weights in new:
            assert all(np.array_equal(v.numpy(), now[0][k]) for k, v in weights.items())

        assert not same(now[0], first)
        algorithm.restore_from_path(str(checkpoint))
        for restored in learner_weights(algorithm):
            assert same(restored, first)
    finally:
        algorithm.stop()


@pytest.mark.slow
@pytest.mark.parametrize(("die", "reason"), [(False, "the dice fell off the table"), (True, "died")])
def test_training_without_runners_stops_with_the_reason(
    die: bool, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(2 - die, 0, fail_at=str(tmp_path / "now"), die=die)
    if die:
        config.fault_tolerance(restart_failed_env_runners=False)
    reports = []

    def report(numbers: dict[str, Any]) -> None:
        reports.append(numbers)
        (tmp_path / "now").touch()

    with caplog.at_level("WARNING", logger="agents"), pytest.raises(SamplingError, match=reason):
        train(config, stop={"training_iteration": 11}, out=tmp_path / "run", report=report)
    assert reports[0]["env_steps"] == 16 * (2 - die)
    messages = [r.getMessage() for r in caplog.records if "returned no sample" in r.getMessage()]
    assert len(messages) == 2 - die  # each runner's error is logged once
    assert iteration_of(newest_checkpoint(tmp_path / "run")) == 3  # the first iteration, and two without samples


@pytest.mark.slow
def test_two_runners_resume_exactly(tmp_path: Path) -> None:
    config = make_config(2, 0).training(epsilon=[[0, 1.0], [150, 0.1]])
    expected, numbers = run(config, 6, out=tmp_path / "run", checkpoint_freq=3)
    shutil.rmtree(tmp_path / "run" / "checkpoint_000006")
    again, numbers_again = run(None, 6, resume=tmp_path / "run", out=tmp_path / "run")
    assert again == expected
    assert numbers_again == {k: numbers[k] for k in ("4", "5", "6")}
    assert numbers["6"]["env_steps"] == 6 * 2 * 16


@pytest.mark.slow
def test_the_error_of_a_runner_that_cannot_be_built_is_raised() -> None:
    algorithm = make_config(1, 0)
    algorithm.environment(DICE, env_config={"only_at": os.getpid()})
    with pytest.raises(InputError, match="not in this process"):
        algorithm.build_algo()


@pytest.mark.slow
def test_an_error_in_one_round_does_not_stop_training() -> None:
    """A runner whose environment raises an error builds a new one and continues."""
    algorithm = make_config(1, 0, fail_after=1).build_algo()
    try:
        lengths = []
        for _ in range(4):
            algorithm.train()
            lengths.append(len(shown(algorithm)))
        assert lengths == [8, 8, 16, 16]
        assert len(np.unique(shown(algorithm), axis=0)) == 16
    finally:
        algorithm.stop()


@pytest.mark.slow
@pytest.mark.parametrize(("remote", "unit"), [(0, "timesteps"), (1, "episodes"), (1, "timesteps")])
def test_evaluation_runners_do_not_affect_training(remote: int, unit: str) -> None:
    config = (
        make_config()
        .training(epsilon=1.0)
        .evaluation(
            evaluation_interval=2,
            evaluation_num_env_runners=remote,
            evaluation_duration=20,
            evaluation_duration_unit=unit,
        )
    )
    algorithm = config.build_algo()
    plain = make_config().training(epsilon=1.0).build_algo()
    try:
        results = [algorithm.train() for _ in range(4)]
        batches = 3 if unit == "episodes" else 2  # of eight episodes of two steps each
        for k in (1, 3):
            numbers = results[k]["evaluation"]["env_runners"]
            assert numbers["num_episodes"] == 8 * batches
            assert numbers["num_env_steps_sampled"] == 16 * batches
        assert "evaluation" not in results[0]
        for _ in range(4):
            plain.train()
        assert same(learner_weights(algorithm)[0], learner_weights(plain)[0])  # evaluation does not affect training
    finally:
        algorithm.stop()
        plain.stop()


def test_evaluation_on_the_training_runner_is_greedy_and_does_not_affect_training() -> None:
    one, two = (make_config().training(epsilon=1.0).build_algo() for _ in range(2))
    try:
        for k in range(3):
            one.train()
            two.train()
            if k == 1:
                greedy = TeamEnvRunner(config=two.config, worker_index=1)
                greedy.module.load_state_dict(two.env_runner.module.state_dict())
                greedy.begin_round(1, evaluates=True)
                expected = greedy.sample(num_episodes=10, explore=False)[-1].columns["reward"].sum(1)
                returns = two.evaluate()["env_runners"]
                assert returns["num_episodes"] == 16
                assert returns["episode_return_mean"] == pytest.approx(expected.mean())
        assert np.array_equal(shown(one), shown(two))
        assert same(learner_weights(one)[0], learner_weights(two)[0])
    finally:
        one.stop()
        two.stop()


def test_too_few_resources_are_refused() -> None:
    config = make_config(20, 3).evaluation(evaluation_interval=1, evaluation_num_env_runners=4)
    with pytest.raises(InputError, match="20 environment runners and 4 evaluation runners and 3 learners need 27 CPUs"):
        config.build_algo()
    with pytest.raises(InputError, match="need 1 GPUs but ray has 0"):
        make_config().learners(num_learners=1, num_gpus_per_learner=1).build_algo()


def test_dice_is_a_batched_environment() -> None:
    assert Dice(3).reset(seed=1).state.shape == (3, 6)
