"""SuperSuit's vectors of environments on the flat uniform view."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import marca_env

supersuit = pytest.importorskip("supersuit", reason="needs supersuit: pip install 'marca-env[conformance]'")


def flat(scenario: str = "default", **options: Any) -> marca_env.UniformAgents:
    return marca_env.UniformAgents(marca_env.parallel_env(scenario, **options), flat=True)


@pytest.mark.parametrize("scenario", ["default", "ranking-model-v0", "stages-4-v0"])
def test_a_vector_of_environments(scenario: str) -> None:
    env = supersuit.concat_vec_envs_v1(supersuit.pettingzoo_env_to_vec_env_v1(flat(scenario)), 3, num_cpus=0)
    one = flat(scenario)
    agents, n_actions = len(one.possible_agents), one.action_space(one.possible_agents[0]).n
    seen, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(4 * one.max_steps):
        masks = seen[:, -n_actions:].astype(bool)
        assert masks.any(axis=1).all()
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        seen, rewards, terminated, _, _ = env.step(actions)
        assert seen.shape == (3 * agents, *env.observation_space.shape)
        assert env.observation_space.contains(seen[0])
        assert len({float(r) for r in rewards[:agents]}) == 1
        ends += int(terminated.sum())
    assert ends == 4 * 3 * agents


def test_legal_actions_of_its_masks_are_never_refused() -> None:
    env = supersuit.pettingzoo_env_to_vec_env_v1(flat("stages-4-v0", on_illegal="error"))
    seen, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(40):
        masks = seen[:, -4:].astype(bool)
        seen, *_ = env.step(np.array([rng.choice(np.flatnonzero(mask)) for mask in masks]))


def test_stable_baselines3_learns_through_it() -> None:
    ppo = pytest.importorskip("stable_baselines3", reason="needs stable-baselines3").PPO
    vector = supersuit.pettingzoo_env_to_vec_env_v1(flat())
    env = supersuit.concat_vec_envs_v1(vector, 2, num_cpus=0, base_class="stable_baselines3")
    # no seed: SuperSuit's vectors have no seed() for it
    model = ppo("MlpPolicy", env, device="cpu", n_steps=40, batch_size=40, policy_kwargs={"net_arch": [16]})
    model.learn(320)
    assert model.num_timesteps >= 320
