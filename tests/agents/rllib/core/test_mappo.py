"""MAPPO: the state reaches the critic alone, masks are respected, checkpoints continue, and games are learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.policy.allocation_policy import AllocationPolicy
from agents.rllib import CheckpointPlayer, MAPPOConfig, restore, train
from agents.rllib.core.on_policy import RoundBuffer
from agents.team.team import action_key, mask_key, obs_key
from marca_env.envs.batched_env import BatchedRecommender, batched_env
from marca_env.models.engine import Engine
from marca_env.utils.errors import InputError
from tests.helpers.rllib_envs import Corridor

GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"
SMALL: dict[str, Any] = {"gru": 8, "hidden": (8,), "critic_hidden": (8,), "train_batch_size_per_learner": 8}

pytestmark = pytest.mark.usefixtures("one_cpu_ray")


def small_config(env: Any, **options: Any) -> MAPPOConfig:
    """Return a configuration with small networks and eight episodes a round."""
    config = MAPPOConfig().environment(env).env_runners(num_envs_per_env_runner=8).debugging(seed=0)
    return config.training(**{**SMALL, **options})


def play(config: Any) -> tuple[Any, dict[str, Any]]:
    """Return a built algorithm and the columns of a round of drawn actions."""
    algorithm, _ = train(config, stop={"training_iteration": 1})
    return algorithm, algorithm.env_runner.sample()[0].columns


def learner_of(algorithm: Any) -> Any:
    """Return the local learner."""
    return algorithm.learner_group._learner


@pytest.mark.parametrize("gru", [8, None])
def test_the_state_reaches_the_value_and_no_policy(gru: int | None) -> None:
    """Other states change all values and not one logit."""
    algorithm, columns = play(small_config(GAME, gru=gru))
    module = learner_of(algorithm)._team
    batch = {name: torch.as_tensor(values) for name, values in columns.items()}
    other = {**batch, "state": batch["state"] + 1.0}
    for ours, theirs in zip(module._logits(batch)[0], module._logits(other)[0], strict=True):
        assert torch.equal(ours, theirs)
    assert (module.normalised_values(batch) != module.normalised_values(other)).all()
    hidden = module.initial_hidden(8)
    first = {obs_key(a): batch[obs_key(a)][:, 0] for a in module.spec.agents}
    first |= {mask_key(a): batch[mask_key(a)][:, 0] for a in module.spec.agents}
    acted = module.forward_inference({**first, **hidden})  # without any state
    assert set(acted) >= {action_key(a) for a in module.spec.agents}
    assert not any("critic" in name for name in algorithm.env_runner.module.state_dict())
    algorithm.stop()


def test_masks_are_respected_in_play_and_in_learning(exact_engine: Engine) -> None:
    """The environment raises at an illegal action; no drawn action is illegal, whatever the logits."""

    def make(num_envs: int) -> BatchedRecommender:
        return batched_env(num_envs, engine=exact_engine, on_illegal="error")

    algorithm, columns = play(small_config(make))
    for agent in learner_of(algorithm).spec.agents:
        taken = np.take_along_axis(columns[mask_key(agent)][:, :-1], columns[action_key(agent)][..., None], -1)
        assert taken[columns["filled"]].all()
    algorithm.stop()


def test_the_old_log_probabilities_are_those_of_the_policies_that_played() -> None:
    """Before the first gradient step every ratio is one, with recurrent policies and unequal episodes, too."""
    algorithm, _ = play(small_config(Corridor))
    columns = algorithm.env_runner.sample()[0].columns
    learner = learner_of(algorithm)
    annotated = {**columns, **learner.annotate(columns)}
    out = learner._team.forward_train({name: torch.as_tensor(v) for name, v in annotated.items()})
    assert float(out["clipped"]) == 0.0
    advantage = annotated["advantage"][columns["filled"]]
    assert float(out["policy_loss"]) == pytest.approx(-advantage.mean(), abs=0.2)
    assert advantage.mean() == pytest.approx(0.0, abs=1e-5)
    assert (annotated["advantage"][~columns["filled"]] == 0).all()
    algorithm.stop()


@pytest.mark.slow
def test_it_learns_the_two_step_game() -> None:
    config = MAPPOConfig().environment(GAME).debugging(seed=0).training(entropy_coeff=0.02, gru=None, hidden=(32,))
    algorithm, numbers = train(config.training(lr=3e-3), stop={"training_iteration": 30})
    assert algorithm.env_runner.sample(explore=False)[0].columns["reward"].sum(1).mean() == 8.0
    assert numbers["gradient_steps"] == 30 * 5 * 4  # five epochs of four minibatches
    algorithm.stop()


def test_values_keep_their_meaning_when_their_unit_moves() -> None:
    algorithm, columns = play(small_config(GAME))
    module = learner_of(algorithm)._team
    batch = {name: torch.as_tensor(values) for name, values in columns.items()}
    before = module.normalised_values(batch) * module.value_std + module.value_mean
    with torch.no_grad():
        module._follow_returns(torch.tensor([100.0, 300.0]))
    after = module.normalised_values(batch) * module.value_std + module.value_mean
    assert module.value_std > 10
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)
    algorithm.stop()


def test_a_restored_run_continues_exactly(tmp_path: Path) -> None:
    first, _ = train(small_config(GAME), stop={"training_iteration": 2}, out=tmp_path)
    again = restore(tmp_path)
    for algorithm in (first, again):
        algorithm.train()
    ours, theirs = (learner_of(a)._team.state_dict() for a in (first, again))
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    first.stop()
    again.stop()


def test_a_checkpoint_plays_and_does_not_serve(tmp_path: Path) -> None:
    algorithm, _ = train(small_config("games/two_step-v0"), stop={"training_iteration": 1}, out=tmp_path)
    algorithm.stop()
    played = CheckpointPlayer(tmp_path).play(4)
    assert played.algorithm == "MAPPO"
    assert set(played.returns.tolist()) <= {0.0, 1.0, 7.0, 8.0}
    with pytest.raises(InputError, match="a policy of MAPPO, which cannot serve"):
        AllocationPolicy.load(tmp_path)


def test_one_network_for_agents_with_equal_spaces() -> None:
    algorithm, _ = play(small_config(GAME, share_parameters=True))
    assert len(learner_of(algorithm)._team.online.agents.networks) == 1
    algorithm.stop()


def test_options_that_have_no_effect_and_wrong_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'clip_param'"):
        MAPPOConfig().training(clip_parm=0.1)
    with pytest.raises(InputError, match="unknown option 'epsilon'"):
        MAPPOConfig().training(epsilon=0.1)
    for options, text in (
        ({"lambda_": 2}, "lambda_ is 2"),
        ({"num_epochs": 0}, "num_epochs is 0"),
        ({"critic_hidden": [0]}, "critic_hidden"),
        ({"clip_param": True}, "clip_param is True"),
    ):
        with pytest.raises(InputError, match=text):
            MAPPOConfig().environment(GAME).training(**options).validate()
    config = MAPPOConfig().environment(GAME)
    config.buffer_capacity = 3
    with pytest.raises(InputError, match="buffer_capacity has no effect"):
        config.validate()
    with pytest.raises(InputError, match="not from a log"):
        MAPPOConfig().offline_data(input_=[str(tmp_path / "log.parquet")]).validate()


def test_a_round_is_read_once_an_epoch() -> None:
    buffer = RoundBuffer(seed=0)
    for part in (np.arange(3.0), np.arange(3.0, 6.0)):
        buffer.add({"reward": part})
    epoch = np.concatenate([buffer.sample(2)["reward"] for _ in range(3)])
    assert sorted(epoch) == list(range(6))
    assert len(buffer.sample(10)["reward"]) == 6
    buffer.clear()
    assert len(buffer) == 0
