"""Small runs on :class:`tests.helpers.rllib_envs.Dice` for tests of remote runners and learners."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import ray
import torch

from agents.rllib import CONFIGS
from agents.rllib.core.cluster import start_ray
from tests.helpers.paths import ROOT

DICE = "tests.helpers.rllib_envs.Dice"
SMALL = {"gru": 4, "hidden": (8,), "heads": 2, "dropout": 0.2, "updates_per_iteration": 2, "learning_starts": 8}
SMALL |= {"train_batch_size_per_learner": 8, "target_update": 3, "lr": [[0, 1e-2], [100, 1e-3]]}


@contextmanager
def workers_that_find_dice() -> Iterator[pytest.MonkeyPatch]:
    """Stop any running ray, and let the workers of a new one import this folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ray.shutdown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        try:
            yield patch
        finally:
            ray.shutdown()
            torch.set_num_threads(threads)


@contextmanager
def local_ray(num_cpus: int) -> Iterator[None]:
    """Start a ray on this machine."""
    with workers_that_find_dice():
        start_ray(num_cpus=num_cpus)
        yield


def make_config(runners: int = 0, learners: int = 0, **env_config: Any) -> Any:
    """Configure AWRQMixer on Dice."""
    config = CONFIGS["AWRQMixer"]().environment(DICE, env_config=env_config).training(**SMALL).debugging(seed=3)
    return config.env_runners(num_env_runners=runners, num_envs_per_env_runner=8).learners(num_learners=learners)


def learner_weights(algorithm: Any) -> list[dict[str, np.ndarray]]:
    """Return the weights of every learner, including targets."""
    group = algorithm.learner_group
    if group.is_local:
        return [{k: v.numpy().copy() for k, v in group._learner._team.state_dict().items()}]
    answers = group.foreach_learner(lambda learner: {k: v.numpy() for k, v in learner._team.state_dict().items()})
    return [answer.get() for answer in answers]


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Return whether two weight dictionaries are equal to the last bit."""
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)


def shown(algorithm: Any) -> np.ndarray:
    """Return the random numbers that identify the episodes of the buffer."""
    return algorithm.buffer.columns["state"][: len(algorithm.buffer), 0]
