"""tianshou's DQN learns with masks on agents of equal spaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.utils.conversions import parallel_to_aec

import marca_env

pytest.importorskip("tianshou", reason="needs tianshou: pip install 'marca-env[conformance]'")
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.env.pettingzoo_env import PettingZooEnv
from tianshou.policy import DQNPolicy, MultiAgentPolicyManager
from tianshou.utils.net.common import Net

pytestmark = [pytest.mark.library("tianshou"), pytest.mark.filterwarnings("ignore")]


def make() -> PettingZooEnv:
    uniform = marca_env.UniformAgents(marca_env.parallel_env(on_illegal="error"))
    return PettingZooEnv(parallel_to_aec(uniform))


def learner(env: Any) -> DQNPolicy:
    net = Net(env.observation_space["observation"].shape, env.action_space.n, hidden_sizes=[16])
    policy = DQNPolicy(net, torch.optim.Adam(net.parameters()), discount_factor=1.0)
    policy.set_eps(0.5)
    return policy


def test_agents_of_different_spaces_are_refused() -> None:
    with pytest.raises(AssertionError, match="Observation spaces for all agents must be identical"):
        PettingZooEnv(marca_env.env())


def test_masked_dqn_learns() -> None:
    torch.manual_seed(0)
    env = make()
    policy = MultiAgentPolicyManager([learner(env) for _ in env.agents], env)
    collector = Collector(policy, DummyVectorEnv([make, make]), VectorReplayBuffer(2000, 2), exploration_noise=True)
    played = collector.collect(n_episode=10)  # an illegal action would raise
    losses = policy.update(32, collector.buffer)
    assert played["n/ep"] == 10
    assert len(losses) == len(env.agents)
    assert np.isfinite(list(losses.values())).all()
