"""Sampling with tensors plays the episodes of the batched environment, and a run can use it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from agents.rllib import CONFIGS, train
from agents.rllib.core.rollout import rollout
from agents.rllib.core.runner import TeamEnvRunner
from agents.rllib.core.tensor_rollout import tensor_rollout
from agents.team.team import action_key, mask_key, turn_key
from marca_env.models.engine import Engine
from marca_env.utils.errors import InputError
from tests.helpers.dice_runs import learner_weights, same

SMALL = {"gru": 8, "hidden": (8,), "learning_starts": 1, "updates_per_iteration": 2}


def make_config(engine: Engine, name: str = "QMIX", n: int = 40, **options: Any) -> Any:
    """Configure a small team on requests of the tiny scenario, sampled with tensors."""
    config = CONFIGS[name]().environment("marca_env/parallel-v0", env_config={"engine": engine})
    config.training(**{**SMALL, "sampling": "tensors", **options}).debugging(seed=4)
    return config.env_runners(num_envs_per_env_runner=n)


def make_runner(config: Any) -> TeamEnvRunner:
    config.validate()
    return TeamEnvRunner(config=config)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_the_columns_are_those_of_the_rollout_of_arrays(tiny_engine: Engine, rate: float) -> None:
    runner = make_runner(make_config(tiny_engine))
    tensors, generator = runner._tensors, torch.Generator().manual_seed(3)
    assert tensors is not None
    ours = tensor_rollout(tensors, runner.module, runner.spec, generator, rate)
    requests = copy.copy(tiny_engine)
    requests.sample_states = lambda rng, n: tensors.states.numpy()  # type: ignore[method-assign]
    runner.env.engine = requests

    class Played:
        """Agents that take the actions of the episodes of tensors."""

        initial_hidden = runner.module.initial_hidden

        def _forward_inference(self, batch: dict[str, Any]) -> dict[str, Any]:
            out = runner.module._forward_inference(batch)
            actions = {key: ours[key][:, runner.env.turn] for key in map(action_key, runner.spec.agents)}
            if rate == 0.0:
                assert all(torch.equal(out[key], actions[key]) for key in actions)
            return {**out, **actions}

    theirs = rollout(runner.env, Played(), runner.spec, np.random.default_rng(0), 0.0)
    assert ours.keys() == theirs.keys()
    for name, column in theirs.items():
        assert ours[name].numpy().dtype == column.dtype
        np.testing.assert_array_equal(ours[name], column, err_msg=name)


def test_random_actions_are_legal_and_uniform(tiny_engine: Engine) -> None:
    runner = make_runner(make_config(tiny_engine, n=6000))
    assert runner._tensors is not None
    columns = tensor_rollout(runner._tensors, runner.module, runner.spec, torch.Generator().manual_seed(1), 1.0)
    for agent in runner.spec.agents:
        actions, masks, on_turn = (columns[key(agent)].numpy() for key in (action_key, mask_key, turn_key))
        for t in np.flatnonzero(on_turn[0, :-1]):
            counts, legal = np.bincount(actions[:, t], minlength=masks.shape[-1]), masks[0, t]
            assert counts[~legal].sum() == 0
            assert np.abs(counts[legal] - 6000 / legal.sum()).max() < 200


def test_the_episodes_follow_from_the_seed_and_the_round(tiny_engine: Engine) -> None:
    runner, again = make_runner(make_config(tiny_engine)), make_runner(make_config(tiny_engine))
    batches = []
    for player, number in ((runner, 1), (runner, 2), (again, 2)):
        player.begin_round(number)
        batches.append(player.sample()[0].columns)
    assert all(np.array_equal(batches[1][name], batches[2][name]) for name in batches[1])
    assert not np.array_equal(batches[0]["state"], batches[1]["state"])


@pytest.mark.slow
def test_a_run_that_samples_with_tensors_learns_and_can_be_repeated(tiny_engine: Engine) -> None:
    weights = []
    for _ in range(2):
        algorithm, numbers = train(make_config(tiny_engine, "AWRQMixer", heads=2), stop={"training_iteration": 2})
        weights.append(learner_weights(algorithm)[0])
        algorithm.stop()
        assert numbers["env_steps"] == 2 * 40 * algorithm.env_runner.spec.max_steps
    assert same(*weights)


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_a_rollout_reads_nothing_back(tiny_engine: Engine, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, reads = make_runner(make_config(tiny_engine)), []
    assert runner._tensors is not None
    for name in ("cpu", "item", "tolist", "nonzero", "numpy", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_, name=name: reads.append(name))
    tensor_rollout(runner._tensors, runner.module, runner.spec, torch.Generator().manual_seed(1), rate)
    assert reads == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_a_rollout_on_a_gpu_waits_for_nothing(tiny_engine: Engine, rate: float) -> None:
    runner = make_runner(make_config(tiny_engine).learners(num_gpus_per_learner=1))
    assert runner._tensors is not None
    generator = torch.Generator("cuda").manual_seed(1)
    tensor_rollout(runner._tensors, runner.module, runner.spec, generator, rate)  # allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        tensor_rollout(runner._tensors, runner.module, runner.spec, generator, rate)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_run_on_a_gpu_keeps_its_replay_there(tiny_engine: Engine) -> None:
    config = make_config(tiny_engine, "AWRQMixer", heads=2).learners(num_gpus_per_learner=1)
    algorithm, numbers = train(config, stop={"training_iteration": 2})
    columns = algorithm.buffer.columns
    assert columns["state"].is_cuda
    assert isinstance(columns["reward"], np.ndarray)
    assert np.isfinite(numbers["loss"])
    algorithm.stop()


def test_what_cannot_be_sampled_with_tensors_is_one_line(tiny_engine: Engine) -> None:
    with pytest.raises(InputError, match="TurnBasedView has none; use an environment of requests"):
        make_runner(make_config(tiny_engine, "JointDQN", gru=None))
    with pytest.raises(InputError, match="unknown sampling 'tensor'; did you mean 'tensors'"):
        make_config(tiny_engine, sampling="tensor").validate()
    windows = make_config(tiny_engine).environment(env_config={"engine": tiny_engine, "window": 2})
    with pytest.raises(InputError, match="windows of requests have no tensors"):
        make_runner(windows)
