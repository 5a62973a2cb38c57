"""Environments for the runner: lookup by name, and looping over PettingZoo environments of unequal episodes."""

from __future__ import annotations

import numpy as np
import pytest
from rllib_envs import AGENTS, Corridor, make_corridor

from agents.rllib.vector import LoopedEnv, make_batched
from benchmarks.games import TwoStepGame
from marca_env.errors import InputError


def test_a_batched_environment_is_taken_as_it_is() -> None:
    assert isinstance(make_batched("benchmarks.games.TwoStepGame", 5), TwoStepGame)
    assert make_batched(TwoStepGame, 5).num_envs == 5


def test_names_registered_with_rllib() -> None:
    from ray.tune.registry import register_env

    register_env("corridor", make_corridor)
    env = make_batched("corridor", 3, {"masked": True})
    assert isinstance(env, LoopedEnv)
    assert env.num_envs == 3


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'marca_env/parallel-v0'"):
        make_batched("marca_env/paralel-v0", 1)


def test_shapes_follow_the_environment() -> None:
    env = make_batched(Corridor, 2)
    assert env.agents == tuple(AGENTS)
    assert env.observation_sizes == {"left": 7, "right.arm": 7}
    assert env.action_sizes == {"left": 2, "right.arm": 3}
    assert (env.state_size, env.max_steps) == (14, 6)


def test_unequal_episodes() -> None:
    env = make_batched(Corridor, 3)
    step = env.reset()
    assert step.masks["right.arm"].tolist() == [[False, True, True]] * 3
    go = {"left": np.ones(3, int), "right.arm": np.ones(3, int)}
    ended, rewards = [], []
    for _ in range(4):
        step = env.step(go)
        ended.append(step.terminated.tolist())
        rewards.append(step.reward.tolist())
    # every sub-environment is in its first episode, of two cells
    assert ended == [[False] * 3, [True] * 3, [False] * 3, [False] * 3]
    assert np.sum(rewards) == 6
    assert step.masks["left"].tolist() == [[False, True]] * 3  # gone: may only wait
    env.envs[0].episode = 1
    env.reset()
    lengths = np.zeros(3, int)
    running = np.ones(3, bool)
    for _ in range(6):
        step = env.step(go)
        lengths += running
        running &= ~step.terminated
    assert lengths.tolist() == [4, 3, 3]


def test_what_cannot_be_learnt_is_refused() -> None:
    class Continuous(Corridor):
        def action_space(self, agent: str):  # type: ignore[no-untyped-def]
            import gymnasium as gym

            return gym.spaces.Box(0, 1, (2,))

    with pytest.raises(InputError, match="need Discrete"):
        make_batched(Continuous, 1)

    class Endless(Corridor):
        max_steps = None  # type: ignore[assignment]

    with pytest.raises(InputError, match="max_episode_steps"):
        make_batched(Endless, 1)
    assert make_batched(Endless, 1, max_steps=9).max_steps == 9
