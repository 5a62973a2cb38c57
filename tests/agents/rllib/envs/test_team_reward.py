"""The reward of a team, and agents that gain what others lose."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from mpe2 import simple_spread_v3, simple_tag_v3

from agents.rllib import CONFIGS
from agents.rllib.envs import team_reward
from agents.rllib.envs.make_env import make_batched
from agents.rllib.envs.team_reward import opposed_agents
from marca_env.utils.errors import InputError


def play(env_class: object, kind: str, episodes: int) -> None:
    """Play random episodes."""
    env = make_batched(env_class, 4, team_reward=kind)
    rng = np.random.default_rng(0)
    for episode in range(episodes // 4 + 1):
        env.reset(seed=episode)
        for _ in range(env.max_steps):
            env.step({a: rng.integers(n, size=4) for a, n in env.action_sizes.items()})


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the environments named in other tests."""
    monkeypatch.setattr(team_reward, "_named", set())


@pytest.mark.slow
def test_opposed_rewards_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            play(simple_tag_v3.parallel_env, "sum", 100)
            play(simple_spread_v3.parallel_env, "mean", 20)
    messages = [r.getMessage() for r in caplog.records if "opposed" in r.getMessage()]
    assert messages == [
        "agents adversary_0, adversary_1, adversary_2 and agent_0 have opposed rewards in simple_tag_v3; "
        "the algorithms maximise their sum"
    ]


def test_rewards_are_opposed_if_signs_and_correlation_say_so() -> None:
    rng = np.random.default_rng(0)
    gain = rng.normal(size=200)
    assert opposed_agents(np.stack([gain, -gain, gain], 1)) == [(0, 1), (1, 2)]
    assert opposed_agents(np.stack([gain, gain], 1)) == []
    assert opposed_agents(np.stack([gain + 5.0, -gain + 5.0], 1)) == []  # both always gain
    assert opposed_agents(np.stack([np.abs(gain), np.full(200, -0.1)], 1)) == []  # a constant cost
    assert opposed_agents(rng.normal(size=(2000, 4))) == []  # independent


def test_a_log_has_one_reward() -> None:
    config = CONFIGS["VDN"]().training(team_reward="sum").offline_data(input_=["log.parquet"])
    with pytest.raises(InputError, match="a log has one reward per request"):
        config.validate()
    assert CONFIGS["VDN"]().team_reward is None  # as the task is reported, else the mean
