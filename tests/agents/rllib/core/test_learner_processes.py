"""Remote learners: one equals local training, two keep equal weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agents.rllib import CONFIGS
from marca_env.scenario.scenario import Scenario
from tests.helpers.dice_runs import SMALL, learner_weights, local_ray, make_config, same, shown

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module", autouse=True)
def running_ray() -> Iterator[None]:
    """Start a ray with four CPUs."""
    with local_ray(num_cpus=4):
        yield


@pytest.mark.slow
def test_one_remote_runner_and_learner_equal_local_training() -> None:
    """Remote and local training give exactly equal weights."""
    runs = []
    for runners, learners in ((0, 0), (1, 1)):
        algorithm = make_config(runners, learners).build_algo()
        results = [algorithm.train() for _ in range(4)]
        runs.append((learner_weights(algorithm)[0], shown(algorithm).copy(), results[-1]))
        algorithm.stop()
    (weights, episodes, numbers), (remote_weights, remote_episodes, remote_numbers) = runs
    assert np.array_equal(episodes, remote_episodes)
    assert same(weights, remote_weights)
    for key in ("num_env_steps_sampled_lifetime", "episode_return_mean"):
        assert numbers["env_runners"][key] == remote_numbers["env_runners"][key]
    steps, remote_steps = (n["learners"]["default_policy"]["gradient_steps"] for n in (numbers, remote_numbers))
    assert steps == remote_steps == 4 * SMALL["updates_per_iteration"]


@pytest.mark.slow
def test_several_learners_learn_from_a_log(tiny_scenario: Scenario, tiny_artefacts: Path, tmp_path: Path) -> None:
    tiny_scenario.save(tmp_path / "tiny.yaml")
    weights = {}
    for learners in (0, 1, 2):
        config = CONFIGS["AWRQMixer"]().offline_data(input_=[str(tiny_artefacts / "requests.parquet")])
        config.training(**SMALL, scenario=str(tmp_path / "tiny.yaml")).debugging(seed=3).learners(num_learners=learners)
        algorithm = config.build_algo()
        try:
            for _ in range(3):
                algorithm.train()
            weights[learners] = learner_weights(algorithm)
        finally:
            algorithm.stop()
    assert same(weights[0][0], weights[1][0])
    assert same(*weights[2])
    assert not same(weights[0][0], weights[2][0])  # two learners use twice as many episodes per step
