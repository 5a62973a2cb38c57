"""SuperSuit's wrappers on Box observations, and its vectors of environments on padded agents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import marca_env

supersuit = pytest.importorskip("supersuit", reason="needs supersuit: pip install 'marca-env[conformance]'")


def flat(scenario: str = "default", **options: Any) -> marca_env.UniformAgents:
    return marca_env.UniformAgents(marca_env.parallel_env(scenario, **options), flat=True)


def box(scenario: str = "default", **options: Any) -> marca_env.envs.pettingzoo_env.RecommenderParallel:  # type: ignore[name-defined]
    return marca_env.parallel_env(scenario, observations="box", **options)


def padded(scenario: str = "default", **options: Any) -> Any:
    return supersuit.pad_action_space_v0(supersuit.pad_observations_v0(box(scenario, **options)))


WRAPPERS = {
    "flatten_v0": lambda env: supersuit.flatten_v0(env),
    "pad_observations_v0": lambda env: supersuit.pad_observations_v0(env),
    "pad_action_space_v0": lambda env: supersuit.pad_action_space_v0(env),
    "black_death_v3": lambda env: supersuit.black_death_v3(env),
    "frame_stack_v1": lambda env: supersuit.frame_stack_v1(env, 3),
}


@pytest.mark.library("supersuit-box")
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("scenario", ["default", "ranking-model-v0"])
def test_wrapped_episodes_are_those_of_the_environment(scenario: str, wrapper: str) -> None:
    plain, wrapped = box(scenario), WRAPPERS[wrapper](box(scenario, on_illegal="error"))
    rng = np.random.default_rng(0)
    for episode in range(3):
        _, infos = plain.reset(seed=episode)
        seen, same = wrapped.reset(seed=episode)
        while plain.agents:
            for agent in plain.agents:
                assert wrapped.observation_space(agent).contains(seen[agent])
                np.testing.assert_array_equal(infos[agent]["action_mask"], same[agent]["action_mask"])
            legal = {agent: np.flatnonzero(info["action_mask"]) for agent, info in infos.items()}
            actions = {agent: int(rng.choice(own)) for agent, own in legal.items()}
            _, rewards, _, _, infos = plain.step(actions)
            seen, same_rewards, _, _, same = wrapped.step(actions)
            assert rewards == {agent: same_rewards[agent] for agent in rewards}


@pytest.mark.library("supersuit-dict")
@pytest.mark.parametrize("wrapper", ["flatten_v0", "pad_observations_v0"])
def test_dict_observations_are_refused(wrapper: str) -> None:
    with pytest.raises((AttributeError, AssertionError)):
        WRAPPERS[wrapper](marca_env.parallel_env()).reset(seed=0)
    WRAPPERS[wrapper](box()).reset(seed=0)


@pytest.mark.library("supersuit-vector")
@pytest.mark.parametrize("with_dead_agents", [False, True])
def test_a_vector_of_padded_agents(with_dead_agents: bool) -> None:
    env = supersuit.black_death_v3(padded()) if with_dead_agents else padded()
    vector = supersuit.concat_vec_envs_v1(supersuit.pettingzoo_env_to_vec_env_v1(env), 3, num_cpus=0)
    _, infos = vector.reset(seed=0)
    ends = 0
    for _ in range(20):
        _, rewards, terminated, _, infos = vector.step(np.array([vector.action_space.sample() for _ in range(6)]))
        assert all("action_mask" in info for info in infos)
        assert rewards.shape == (6,)
        ends += int(terminated.sum())
    assert ends == (3 if with_dead_agents else 4) * 6  # a dead agent takes one more step


@pytest.mark.library("supersuit-vector")
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


@pytest.mark.library("supersuit-vector")
def test_legal_actions_of_its_masks_are_never_refused() -> None:
    env = supersuit.pettingzoo_env_to_vec_env_v1(flat("stages-4-v0", on_illegal="error"))
    seen, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(40):
        masks = seen[:, -4:].astype(bool)
        seen, *_ = env.step(np.array([rng.choice(np.flatnonzero(mask)) for mask in masks]))


@pytest.mark.library("supersuit-vector")
def test_stable_baselines3_learns_through_it() -> None:
    ppo = pytest.importorskip("stable_baselines3", reason="needs stable-baselines3").PPO
    vector = supersuit.pettingzoo_env_to_vec_env_v1(flat())
    env = supersuit.concat_vec_envs_v1(vector, 2, num_cpus=0, base_class="stable_baselines3")
    # no seed: SuperSuit's vectors have no seed() for it
    model = ppo("MlpPolicy", env, device="cpu", n_steps=40, batch_size=40, policy_kwargs={"net_arch": [16]})
    model.learn(320)
    assert model.num_timesteps >= 320
