"""The team learns the right task: forced actions are observed, and waiting is what the environment says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agents.algorithms.presets import preset
from agents.rllib import CONFIGS, train
from agents.rllib.core.rollout import rollout
from agents.rllib.envs.make_env import make_batched
from agents.rllib.modules.team_module import TeamRLModule, hidden_key
from agents.team.team import TeamSpec, action_key, mask_key, obs_key, turn_key
from tests.helpers.rllib_envs import Cue, Lamps, Leavers, MayLeave

SMALL: dict[str, Any] = {
    "gru": 16,
    "hidden": (16,),
    "lr": 1e-2,
    "epsilon": 1.0,
    "learning_starts": 64,
    "train_batch_size_per_learner": 64,
    "updates_per_iteration": 20,
    "target_update": 20,
}
pytestmark = pytest.mark.usefixtures("one_cpu_ray")


def greedy_returns(name: str, env: Any, env_config: dict[str, Any], iterations: int, **options: Any) -> list[float]:
    """Train under random exploration and return the returns of 64 greedy episodes."""
    config = CONFIGS[name]().environment(env, env_config=env_config).debugging(seed=0)
    config.env_runners(num_envs_per_env_runner=64).training(**SMALL | options)
    algorithm, _ = train(config, stop={"training_iteration": iterations})
    columns = algorithm.env_runner.sample(explore=False)[0].columns
    algorithm.stop()
    return columns["reward"].sum(1).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("forced", [0, 1])
@pytest.mark.parametrize("name", ["VDN", "QMIX", "JointDRQN"])
def test_a_cue_is_remembered_whichever_action_was_forced(name: str, forced: int) -> None:
    """An agent with one legal action still observes; the last action is not a sign of waiting."""
    returns = greedy_returns(name, Cue, {"forced": forced}, 20)
    assert set(returns) == {1.0}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "best"), [("mean", 4.5), ("sum", 9.0)])
@pytest.mark.parametrize("name", ["VDN", "QMIX"])
def test_a_team_does_not_learn_to_leave(name: str, kind: str, best: float) -> None:
    """The best team stays and earns 9 together; the mean over those present would let one agent leave (6.5)."""
    returns = greedy_returns(name, MayLeave, {}, 12, team_reward=kind)
    assert set(returns) == {best}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["QMIX", "WeightedQMIX", "JointDQN"])
def test_a_team_learns_from_images(name: str) -> None:
    """Images are stored as bytes and scaled where the networks read them."""
    returns = greedy_returns(name, Lamps, {}, 25, gru=None, lr=3e-3)
    assert set(returns) == {1.0}


@pytest.mark.parametrize("forced", [0, 1])
def test_the_recurrent_state_follows_the_declared_turns(forced: int) -> None:
    """A forced action advances the recurrent state, a wait does not, and nothing declared means that all act."""
    spec = TeamSpec(("a",), (3,), (2,), 3, 2)
    module = TeamRLModule(model_config={"team": spec.to_dict(), "preset": preset("VDN", gru=4, hidden=(4,)).to_dict()})
    batch = {obs_key("a"): torch.ones(2, 3), mask_key("a"): torch.arange(2).eq(forced).expand(2, 2)}
    batch |= module.initial_hidden(2)
    all_act = module._forward_inference(batch)
    assert all_act[hidden_key("a")].abs().sum(-1).min() > 0
    one_acts = module._forward_inference({**batch, turn_key("a"): torch.tensor([True, False])})
    assert torch.equal(one_acts[hidden_key("a")][0], all_act[hidden_key("a")][0])
    assert not one_acts[hidden_key("a")][1].any()
    assert one_acts[action_key("a")].tolist() == [forced, forced]


def test_a_rollout_stores_the_turns() -> None:
    env = make_batched(Leavers, 3, {"cut": True})
    spec = TeamSpec.from_source(env)
    module = TeamRLModule(model_config={"team": spec.to_dict(), "preset": preset("VDN", gru=4, hidden=(4,)).to_dict()})
    columns = rollout(env, module, spec, np.random.default_rng(0), 0.5)
    assert (columns[turn_key("early")] == (np.arange(9) == 0)).all()  # it leaves after one step
    assert (columns[turn_key("late")] == (np.arange(9) < 4)).all()  # truncated: its last observation is valued
