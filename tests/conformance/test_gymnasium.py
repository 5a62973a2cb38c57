"""gymnasium.make_vec builds the batched environment for the ids of requests; its wrappers take it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import marca_env

IDS = sorted(set(marca_env.ENVIRONMENTS) - {"marca_env/Balancing-v0", "marca_env/Fleet-v0"})


@pytest.mark.library("gym-vector")
@pytest.mark.parametrize("name", IDS)
def test_make_vec(name: str) -> None:
    env = RecordEpisodeStatistics(gymnasium.make_vec(name, num_envs=4))
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    seen, infos = env.reset(seed=0)
    ends = 0
    for _ in range(400):
        assert env.observation_space.contains(seen)
        actions = np.array([np.flatnonzero(mask)[-1] if mask.any() else 0 for mask in infos["action_mask"]])
        seen, _, terminated, _, infos = env.step(actions)
        ends += int(terminated.sum())
    assert ends >= 8
    env.close()
