"""What a reported return is: mean or sum over all possible agents, for presets and for RLlib's algorithms."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.ppo import PPOConfig

from agents.rllib import CONFIGS, independent
from agents.rllib.training.metrics import summary
from agents.rllib.training.team_return import TeamReturn, return_of_config, return_of_env
from benchmarks.training.trials import Trial
from marca_env.utils.errors import InputError

LEAVER = "tests.agents.rllib.training.test_team_return.Leaver"


class Leaver:
    """ParallelEnv of two steps: ``a`` earns 1 a step, ``b`` earns 4 in the first and leaves."""

    possible_agents = ("a", "b")
    max_steps = 2

    def observation_space(self, agent: str) -> gym.Space:
        return gym.spaces.Box(0, 2, (1,), np.float32)

    def action_space(self, agent: str) -> gym.Space:
        return gym.spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.agents, self.at = ["a", "b"], 0
        return {a: np.zeros(1, np.float32) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        self.at += 1
        here = self.agents
        self.agents = ["a"] if self.at == 1 else []
        ended = {a: a not in self.agents for a in here}
        rewards = {a: 1.0 if a == "a" else 4.0 for a in here}
        none = dict.fromkeys(here, False)
        return {a: np.full(1, self.at, np.float32) for a in here}, rewards, ended, none, {a: {} for a in here}

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("team", "returns", "expected", "label"),
    [
        (TeamReturn("mean", 3), [6.0, 3.0, 0.0], 3.0, "mean of 3 agents"),
        (TeamReturn("mean", 3), [6.0, 3.0], 3.0, "mean of 3 agents"),  # the third never appeared
        (TeamReturn("sum", 3), [6.0, 3.0], 9.0, "sum of 3 agents"),
        (TeamReturn("sum", 2, pays_sum=True), [9.0, 9.0], 9.0, "sum of 2 agents"),
        (TeamReturn("mean", 2, pays_sum=True), [9.0, 9.0], 4.5, "mean of 2 agents"),
        (TeamReturn("mean"), [6.0, 3.0], 4.5, "mean of the agents"),
        (TeamReturn(), [5.0, 5.0], 5.0, "of the team"),
        (TeamReturn(agents=1), [5.0], 5.0, ""),
    ],
)
def test_returns_are_combined_over_all_possible_agents(
    team: TeamReturn, returns: list[float], expected: float, label: str
) -> None:
    assert team.combine(returns) == pytest.approx(expected)
    assert team.label == label


def test_a_summary_says_what_its_return_is() -> None:
    results = {"training_iteration": 1, "env_runners": {"agent_episode_returns_mean": {"a": 2.0, "b": 4.0}}}
    assert summary(results, TeamReturn("sum", 2)) == {
        "training_iteration": 1,
        "episode_return_mean": 6.0,
        "team_reward": "sum of 2 agents",
    }
    assert "team_reward" not in summary({"training_iteration": 1}, TeamReturn("sum", 2))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "expected"), [(None, 3.0), ("mean", 3.0), ("sum", 6.0)])
@pytest.mark.parametrize("run", ["VDN", "PPO"])
def test_presets_and_rllib_report_the_same_return(
    run: str, kind: str | None, expected: float, one_cpu_ray: None
) -> None:
    """An agent that left counts as 0 later: a earns 2, b earns 4."""
    from agents.rllib import train

    options: dict[str, Any] = {"learning_starts": 10**6} if run == "VDN" else {"train_batch_size_per_learner": 40}
    if run == "PPO":
        options |= {"minibatch_size": 20, "num_epochs": 1}
    if kind is not None:
        options["team_reward"] = kind
    config = Trial(run=run, env=LEAVER, config=options).build()
    algorithm, numbers = train(config, stop={"training_iteration": 1})
    algorithm.stop()
    assert numbers["episode_return_mean"] == pytest.approx(expected)
    assert numbers["team_reward"] == f"{kind or 'mean'} of 2 agents"


def test_public_tasks_that_are_reported_as_a_sum_are_labelled_so() -> None:
    pytest.importorskip("lbforaging")
    config = independent(PPOConfig(), "Foraging-5x5-2p-1f-v3")
    assert return_of_config(config) == TeamReturn("sum", 2, pays_sum=True)


def test_a_batched_environment_has_one_reward() -> None:
    from agents.rllib.envs.make_env import make_batched

    game = "benchmarks.experiments.games.matrix_games.TwoStepGame"
    assert return_of_env(make_batched(game, 2)).label == "of the team"
    assert return_of_env(make_batched(LEAVER, 2, team_reward="sum")) == TeamReturn("sum", 2)


def test_bad_values_are_refused() -> None:
    with pytest.raises(InputError, match="unknown team_reward 'median'"):
        Trial(run="PPO", env=LEAVER, config={"team_reward": "median"}).build()
    with pytest.raises(InputError, match="CartPole-v1 has one agent; remove the option"):
        Trial(run="PPO", env="CartPole-v1", config={"team_reward": "sum"}).build()


def test_rllibs_algorithms_evaluate_greedily_unless_told_otherwise() -> None:
    assert Trial(run="PPO", env=LEAVER).build().evaluation_config["explore"] is False
    told = Trial(run="PPO", env=LEAVER, config={"evaluation_config": {"explore": True}}).build()
    assert told.evaluation_config["explore"] is True
    assert CONFIGS["QMIX"]().evaluation_config["explore"] is False
