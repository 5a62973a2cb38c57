"""Agents in the same spaces: conformance, and the same episode as without."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

import marca_env
from marca_env.envs.batched_env import IllegalActionError
from marca_env.envs.wrappers import UniformAgents


@pytest.mark.parametrize("flat", [False, True])
def test_pettingzoo_accepts_it(flat: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("default", "stages-4-v0"):
            parallel_api_test(UniformAgents(marca_env.parallel_env(name), flat), num_cycles=30)
            parallel_seed_test(lambda name=name: UniformAgents(marca_env.parallel_env(name), flat), num_cycles=10)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", ["default", "ranking-model-v0"])
def test_it_tells_the_same_story_in_the_same_spaces(name: str, flat: bool) -> None:
    plain = marca_env.parallel_env(name, window=2)
    uniform = UniformAgents(marca_env.parallel_env(name, window=2, on_illegal="error"), flat)
    agents = plain.possible_agents
    assert all(uniform.observation_space(a) == uniform.observation_space(agents[0]) for a in agents)
    assert len({uniform.action_space(a).n for a in agents}) == 1
    seen, shown = plain.reset(seed=3)[0], uniform.reset(seed=3)[0]
    rng, most = np.random.default_rng(0), max(plain.action_space(a).n for a in agents)
    while plain.agents:
        for place, agent in enumerate(agents):
            own, other = seen[agent], shown[agent]
            assert uniform.observation_space(agent).contains(other)
            both = {"observation": other[:-most], "action_mask": other[-most:]} if flat else other
            vector, mask, n = both["observation"], both["action_mask"], len(own["observation"])
            assert vector[: len(agents)].tolist() == [float(k == place) for k in range(len(agents))]
            np.testing.assert_array_equal(vector[len(agents) : len(agents) + n], own["observation"])
            assert not vector[len(agents) + n :].any()
            np.testing.assert_array_equal(np.flatnonzero(mask), np.flatnonzero(own["action_mask"]))
        actions = {agent: int(rng.choice(np.flatnonzero(seen[agent]["action_mask"]))) for agent in agents}
        seen, rewards, done, _, _ = plain.step(actions)
        shown, same_rewards, same_done, _, _ = uniform.step(actions)
        assert (rewards, done) == (same_rewards, same_done)
    np.testing.assert_array_equal(plain.state(), uniform.state())


def test_actions_that_an_agent_has_not() -> None:
    """`wait` where the nearest is taken, an error elsewhere; what no agent has is always one."""
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
