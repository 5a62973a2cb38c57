"""Tests of UniformAgents: conformance, and the same episode as without the wrapper."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

import marca_env
from marca_env.envs.batched_env import IllegalActionError
from marca_env.envs.wrappers import UniformAgents
from marca_env.utils.errors import InputError


@pytest.mark.parametrize("flat", [False, True])
def test_pettingzoo_tests_pass(flat: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("default", "stages-4-v0"):
            parallel_api_test(UniformAgents(marca_env.parallel_env(name), flat), num_cycles=30)
            parallel_seed_test(lambda name=name: UniformAgents(marca_env.parallel_env(name), flat), num_cycles=10)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", ["default", "ranking-model-v0"])
def test_episode_is_unchanged_and_all_agents_share_their_spaces(name: str, flat: bool) -> None:
    plain = marca_env.parallel_env(name, window=2)
    uniform = UniformAgents(marca_env.parallel_env(name, window=2, on_illegal="error"), flat)
    agents = plain.possible_agents
    assert all(uniform.observation_space(a) == uniform.observation_space(agents[0]) for a in agents)
    assert len({uniform.action_space(a).n for a in agents}) == 1
    observations, (padded, infos) = plain.reset(seed=3)[0], uniform.reset(seed=3)
    rng, most = np.random.default_rng(0), max(plain.action_space(a).n for a in agents)
    while plain.agents:
        for place, agent in enumerate(agents):
            own, other = observations[agent], padded[agent]
            assert uniform.observation_space(agent).contains(other)
            both = {"observation": other[:-most], "action_mask": other[-most:]} if flat else other
            vector, mask, n = both["observation"], both["action_mask"], len(own["observation"])
            assert vector[: len(agents)].tolist() == [float(k == place) for k in range(len(agents))]
            np.testing.assert_array_equal(vector[len(agents) : len(agents) + n], own["observation"])
            assert not vector[len(agents) + n :].any()
            np.testing.assert_array_equal(np.flatnonzero(mask), np.flatnonzero(own["action_mask"]))
            np.testing.assert_array_equal(infos[agent]["action_mask"], mask)
            assert uniform.is_on_turn(agent) == plain.is_on_turn(agent)
        actions = {agent: int(rng.choice(np.flatnonzero(observations[agent]["action_mask"]))) for agent in agents}
        observations, rewards, done, _, _ = plain.step(actions)
        padded, same_rewards, same_done, _, infos = uniform.step(actions)
        assert (rewards, done) == (same_rewards, same_done)
    np.testing.assert_array_equal(plain.state(), uniform.state())


def test_missing_actions_count_as_wait_or_raise() -> None:
    """They count as `wait` with `nearest` and raise with `error`; an action that no agent has always raises."""
    strict = UniformAgents(marca_env.parallel_env("ranking-model-v0", on_illegal="error"))
    lenient = UniformAgents(marca_env.parallel_env("ranking-model-v0"))
    for env in (strict, lenient):
        env.reset(seed=0)
    # ranking has three models and `wait`; the others have four lengths and `wait`
    actions = {"retrieval": 0, "pre_ranking": 4, "ranking": 4}
    with pytest.raises(IllegalActionError, match="'ranking' took action 4"):
        strict.step(actions)
    lenient.step(actions)
    with pytest.raises(IllegalActionError, match="took action 5"):
        lenient.step({**actions, "ranking": 5})


def test_box_observations_are_refused() -> None:
    with pytest.raises(InputError, match="leave out observations='box'"):
        UniformAgents(marca_env.parallel_env(observations="box"))
