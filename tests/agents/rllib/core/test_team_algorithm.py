"""The algorithms learn what they can represent, online and from a log, and resume exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module import RLModule

from agents.algorithms.presets import PRESETS
from agents.policy.allocation_policy import AllocationPolicy, load_team
from agents.rllib import CONFIGS, offline_train, online_train, train
from agents.rllib.training.algorithm_checkpoints import restore
from agents.rllib.training.evaluation import WEIGHTS
from marca_env.envs.batched_env import BatchedRecommender, batched_env
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.factories import ExactLaw
from tests.helpers.rllib_envs import Corridor

GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"
TINY = {"gru": 8, "hidden": (8,), "updates_per_iteration": 5, "train_batch_size_per_learner": 32, "learning_starts": 32}


pytestmark = pytest.mark.usefixtures("one_cpu_ray")


def greedy_return(algorithm: Any) -> float:
    """Return the mean return of greedy episodes."""
    return float(algorithm.env_runner.sample(explore=False)[0].columns["reward"].sum(1).mean())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("QMIX", 8.0), ("VDN", 7.0)])
def test_qmix_solves_the_two_step_game_and_vdn_does_not(name: str, expected: float) -> None:
    """A sum cannot represent the game's second matrix; a monotone mixer can."""
    config = CONFIGS[name]().environment(GAME).debugging(seed=0)
    config.training(
        epsilon=1.0,
        lr=5e-3,
        gru=None,
        hidden=[32],
        target_update=20,
        updates_per_iteration=20,
        train_batch_size_per_learner=64,
        learning_starts=64,
    )
    algorithm, _ = train(config, stop={"training_iteration": 20})
    assert greedy_return(algorithm) == expected
    algorithm.stop()


@pytest.mark.slow
def test_qmix_learns_with_unequal_episodes_and_unusual_agent_names() -> None:
    """The agents learn to walk every episode to its end, whether it has 2, 3 or 4 cells."""
    config = CONFIGS["QMIX"]().environment(Corridor).env_runners(num_envs_per_env_runner=4).debugging(seed=0)
    config.training(**TINY | {"epsilon": 0.5, "lr": 1e-2, "learning_starts": 4})
    algorithm, numbers = train(config, stop={"training_iteration": 20})
    assert numbers["env_steps"] == algorithm.buffer.columns["filled"].sum()
    for _ in range(3):
        columns = algorithm.env_runner.sample(explore=False)[0].columns
        assert columns["reward"].sum(1).tolist() == [env.length for env in algorithm.env_runner.env.envs]
    algorithm.stop()


def test_a_joint_controller_decides_for_simultaneous_agents() -> None:
    config = CONFIGS["JointDRQN"]().environment(GAME).env_runners(num_envs_per_env_runner=8).debugging(seed=0)
    algorithm, numbers = train(config.training(**TINY), stop={"training_iteration": 5})
    assert numbers["env_steps"] == 5 * 8 * 4  # two agents and two steps, one decision each
    assert greedy_return(algorithm) in (0.0, 1.0, 7.0, 8.0)
    assert np.isfinite(numbers["loss"])
    algorithm.stop()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_algorithm_runs_in_the_recommender(name: str, exact_engine: Engine, tmp_path: Path) -> None:
    """The exported policy contains the scenario."""

    def make(num_envs: int) -> BatchedRecommender:
        return batched_env(num_envs, engine=exact_engine, on_illegal="error")

    config = CONFIGS[name]().environment(make).training(**TINY).debugging(seed=0)
    algorithm, numbers = train(config, stop={"training_iteration": 2})
    assert np.isfinite(numbers["loss"])
    algorithm.export_policy(tmp_path)
    algorithm.stop()
    _, description = load_team(tmp_path)
    assert Scenario.from_dict(description["scenario"]) == exact_engine.scenario


@pytest.mark.parametrize("policy_weights", ["online", "average"])
def test_the_weights_that_decide_are_sampled_with_exported_and_read_from_checkpoints(
    policy_weights: str, exact_engine: Engine, tmp_path: Path
) -> None:
    def make(num_envs: int) -> BatchedRecommender:
        return batched_env(num_envs, engine=exact_engine, on_illegal="error")

    config = CONFIGS["VDN"]().environment(make).training(**TINY, tau=0.1, policy_weights=policy_weights)
    algorithm, _ = train(config.debugging(seed=0), stop={"training_iteration": 2}, out=tmp_path)
    learnt = weights(algorithm)
    part = {"online": "online.", "average": "target."}[policy_weights]
    expected = {name.removeprefix(part): w for name, w in learnt.items() if name.startswith(f"{part}agents")}
    assert any(not torch.equal(learnt[f"online.{n}"], learnt[f"target.{n}"]) for n in expected)
    runner = algorithm.env_runner.module.state_dict()
    exported = load_team(algorithm.export_policy(tmp_path / "policy"))[0].state_dict()
    saved = RLModule.from_checkpoint(str(next(tmp_path.glob("checkpoint_*")).joinpath(*WEIGHTS, DEFAULT_MODULE_ID)))
    algorithm.stop()
    for name, weight in expected.items():
        torch.testing.assert_close(runner[f"online.{name}"], weight, rtol=0, atol=0)
        torch.testing.assert_close(exported[name], weight, rtol=0, atol=0)
        torch.testing.assert_close(saved.deciding.state_dict()[name], weight, rtol=0, atol=0)


def weights(algorithm: Any) -> dict[str, torch.Tensor]:
    """Return the weights of the local learner."""
    return algorithm.learner_group._learner._team.state_dict()


@pytest.mark.slow
def test_a_restored_algorithm_continues_exactly(tmp_path: Path) -> None:
    config = CONFIGS["AWRQMixer"]().environment(GAME).debugging(seed=0)
    config.training(**TINY | {"heads": 2, "dropout": 0.2, "target_update": 7, "lr": 1e-2})
    first, numbers = train(config, stop={"training_iteration": 3}, out=tmp_path, checkpoint_freq=2)
    assert [p.name for p in sorted(tmp_path.glob("checkpoint_*"))] == ["checkpoint_000002", "checkpoint_000003"]
    again = restore(tmp_path)
    assert again.iteration == 3
    assert len(again.buffer) == len(first.buffer) > 0
    rng = torch.get_rng_state()
    for algorithm in (first, again):
        torch.set_rng_state(rng)  # both algorithms would share one generator
        algorithm._learn()
    assert all(torch.equal(a, b) for a, b in zip(weights(first).values(), weights(again).values(), strict=True))
    assert again.learner_group._learner.gradient_steps == 20
    assert again.train()["env_runners"]["num_env_steps_sampled_lifetime"] > numbers["env_steps"]
    description = load_team(tmp_path / "checkpoint_000003")[1]
    assert description["scenario"] is None
    for algorithm in (first, again):
        algorithm.stop()
    with pytest.raises(InputError, match="without a scenario"):
        AllocationPolicy.load(tmp_path / "checkpoint_000003")


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint here"):
        restore(tmp_path)


@pytest.mark.slow
def test_online_training_learns_the_ranking_of_actions(
    exact_engine: Engine, tiny_artefacts: Path, tmp_path: Path
) -> None:
    """With the expected revenue as reward the ranking of all actions is nearly right."""

    def make(num_envs: int) -> BatchedRecommender:
        return batched_env(num_envs, engine=exact_engine, on_illegal="error")

    options = {"gru": 16, "hidden": (32,), "train_batch_size_per_learner": 128, "updates_per_iteration": 25}
    folder = online_train(tmp_path, algo="QMIX", env=make, iterations=10, num_envs=200, options=options)
    policy = AllocationPolicy.load(folder, cost_model=CostModel.load(tiny_artefacts / "cost_model"))
    states = exact_engine.population.states
    truth = exact_engine.table(states)[0]
    assert np.corrcoef(policy.values(states).ravel(), truth.ravel())[0, 1] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AWRQMixer", "JointDRQN"])
def test_offline_training_learns_values_and_ranking(
    name: str, tiny_scenario: Scenario, tiny_artefacts: Path, tmp_path: Path
) -> None:
    """The policy's mean value is the log's mean revenue, and it ranks actions better than chance."""
    tiny_scenario.save(tmp_path / "tiny.yaml")
    policy_folder = offline_train(
        tiny_artefacts / "requests.parquet",
        tmp_path / "run",
        algo=name,
        scenario=str(tmp_path / "tiny.yaml"),
        iterations=6,
        options={"gru": 16, "hidden": (32,), "lr": 5e-3, "train_batch_size_per_learner": 256, **_heads(name)},
    )
    policy = AllocationPolicy.load(policy_folder, cost_model=CostModel.load(tiny_artefacts / "cost_model"))
    states = np.stack(np.unravel_index(np.arange(48), tiny_scenario.feature_sizes), 1)
    joint = tiny_scenario.joint_actions
    truth = ExactLaw(tiny_scenario).predict(np.repeat(states, len(joint), 0), np.tile(joint, (48, 1))).reshape(48, -1)
    values = policy.values(states)
    assert values.mean() == pytest.approx(truth.mean(), rel=0.35)
    assert np.corrcoef(values.ravel(), truth.ravel())[0, 1] > 0.6
    assert json.loads((policy_folder / "policy.json").read_text())["preset"]["name"] == name


def test_an_interrupted_training_saves_no_policy(exact_engine: Engine, tmp_path: Path) -> None:
    def make(num_envs: int) -> BatchedRecommender:
        return batched_env(num_envs, engine=exact_engine, on_illegal="error")

    def interrupt(_: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        online_train(tmp_path, algo="VDN", env=make, iterations=3, num_envs=20, options=TINY, report=interrupt)
    assert list(tmp_path.iterdir()) == []


def _heads(name: str) -> dict[str, int]:
    return {"heads": 2} if name == "AWRQMixer" else {}


def test_unknown_stopping_criteria_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'training_iteration'"):
        train(CONFIGS["VDN"]().environment(GAME), stop={"training_iterations": 1})


@pytest.mark.slow
def test_a_run_can_stop_at_a_metric_of_the_evaluation() -> None:
    """The limit is checked only at evaluations; a metric that is missing in between is no error."""
    config = CONFIGS["VDN"]().environment(GAME).env_runners(num_envs_per_env_runner=8).training(**TINY)
    scores = iter([1.0, 2.0, 3.0])

    def evaluate(_: Any) -> dict[str, float]:
        return {"score": next(scores)}

    algorithm, numbers = train(
        config, stop={"score": 2.0, "training_iteration": 20}, evaluate=evaluate, evaluate_freq=3
    )
    algorithm.stop()
    assert (numbers["training_iteration"], numbers["score"]) == (6, 2.0)
    with pytest.raises(InputError, match="'scores' is not among"):
        train(config.copy(), stop={"scores": 2.0}, evaluate=lambda _: {"score": 0.0}, evaluate_freq=1)
    with pytest.raises(InputError, match="stopping criterion 'score'"):
        train(config.copy(), stop={"score": 2.0}, evaluate=evaluate)  # evaluated only at the end: never reached


def test_more_runners_than_cpus_are_refused() -> None:
    config = CONFIGS["VDN"]().environment(GAME).env_runners(num_env_runners=1000)
    with pytest.raises(InputError, match="need 1000 CPUs"):
        train(config, stop={"training_iteration": 1})
