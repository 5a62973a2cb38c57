"""RLlib's configuration of a learner on a task, from the case's settings, a budget and the options that were tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig

from agents.algorithms.presets import PRESETS
from agents.rllib.core.mappo import MAPPOConfig
from agents.rllib.core.team_config import TeamConfig
from agents.rllib.envs.make_env import make_batched
from agents.rllib.training.any_algorithm import algorithm_config
from agents.team.reward_statistics import RewardStatistics
from benchmarks.experiments.marl.configuration import network_sizes
from benchmarks.experiments.tasks.settings import BATCH_STEPS, LEAST_EPISODES, SIZES, TUNING_SHARE, WARM_UP_STEPS
from benchmarks.experiments.tasks.task_games import TaskGame
from benchmarks.suite.api import Case
from benchmarks.training.trials import Trial
from marca_env.envs.rewards import REWARDS
from marca_env.utils.errors import InputError

EXPLORATION_SHARE = 0.5
"""Share of the steps over which ε falls from 1 to 0.05 (policies explore in their own way)."""
SCALE_EPISODES, SCALE_SEED = 256, 7
"""Random episodes whose rewards give the scale of rewards for RLlib's own algorithms."""


@dataclass(frozen=True)
class Budget:
    """Budget of one training."""

    env_steps: int
    updates: int
    iterations: int

    @classmethod
    def from_case(cls, case: Case) -> Budget:
        """Return the budget of a run."""
        return cls(*(int(case.budget[name]) for name in ("env_steps", "updates", "iterations")))

    @property
    def of_trial(self) -> Budget:
        """The budget of a trial of the search: :data:`TUNING_SHARE` of a run's, in iterations as large."""
        return Budget(*(max(1, round(TUNING_SHARE * n)) for n in (self.env_steps, self.updates, self.iterations)))


def kind_of(config: Any) -> str:
    """Return the kind of an algorithm: ``team``, ``MAPPO``, ``PPO`` or ``DQN``.

    Raises:
        InputError: the configuration is of another kind.
    """
    for kind, cls in (("MAPPO", MAPPOConfig), ("team", TeamConfig), ("PPO", PPOConfig), ("DQN", DQNConfig)):
        if isinstance(config, cls):
            return kind
    raise InputError(f"{type(config).__name__}: tasks takes presets, MAPPO, PPO, DQN, and what derives from them")


def is_joint(config: Any) -> bool:
    """Return whether one controller takes all decisions."""
    return isinstance(config, TeamConfig) and config.preset().joint


def learner_config(case: Case, game: TaskGame, budget: Budget, tuned: Mapping[str, Any], seed: int) -> Any:
    """Return the checked configuration of a training.

    Args:
        case: names the method and its settings.
        game: the task.
        budget: of this training.
        tuned: options in place of the settings'.
        seed: of this training.

    Raises:
        InputError: the method is unknown, or has no such option.
    """
    bare = algorithm_config(case.method)
    kind, joint = kind_of(bare), is_joint(bare)
    options = dict(case.config["settings"][kind]) | dict(tuned)
    own = case.config.get("own", {})
    if kind == "team" and case.method in PRESETS:
        options = network_sizes(case.method, case.config.get("sizes", SIZES)) | options
    options = {name: value for name, value in options.items() if name not in own}
    if case.config.get("share_parameters") and not joint and "share_parameters" not in own:
        options["share_parameters"] = True
    options |= _BUDGETED[kind](game, budget, options, joint)
    environment = dict(game.options)
    if kind in ("PPO", "DQN"):  # RLlib's algorithms have no unit of rewards
        environment["reward"] = partial(scaled_reward, scale=random_scale(game))
    return Trial(run=case.method, env=game.task, config={**options, "env_config": environment}, seed=seed).build()


def scaled_reward(outcome: Any, prices: np.ndarray, *, scale: float) -> np.ndarray:
    """Return the Lagrangian reward in units of ``scale``."""
    return REWARDS["lagrangian"](outcome, prices) / np.float32(scale)


def random_scale(game: TaskGame) -> float:
    """Return the standard deviation of a step's reward under random legal actions, as the presets scale rewards."""
    env = make_batched(game.task, max(1, SCALE_EPISODES // game.requests), game.options)
    rng, statistics = np.random.default_rng(SCALE_SEED), RewardStatistics()
    step = env.reset(seed=SCALE_SEED)
    for _ in range(env.max_steps):
        drawn = {a: np.where(m, rng.random(m.shape), -1.0).argmax(1) for a, m in step.masks.items()}
        step = env.step(drawn)
        statistics.step.update(step.reward)
    return float(statistics.step.std) or 1.0


def _team(game: TaskGame, budget: Budget, options: Mapping[str, Any], joint: bool) -> dict[str, Any]:
    steps = game.episode_steps()
    view = game.episode_steps(joint=joint) // steps  # steps that a joint controller takes for one of the team
    episodes = max(1, budget.env_steps // budget.iterations // steps)
    warm_up = max(1, WARM_UP_STEPS // steps)
    return {
        "num_envs_per_env_runner": episodes,
        "train_batch_size_per_learner": max(LEAST_EPISODES, BATCH_STEPS // steps),
        "updates_per_iteration": budget.updates // budget.iterations,
        "buffer_capacity": max(episodes, budget.env_steps // steps),
        "learning_starts": warm_up,
        "epsilon": [[0, 1.0], [int(EXPLORATION_SHARE * budget.env_steps * view), 0.05]],
        "max_skipped_updates": None,  # a run that has diverged is a result
    }


def _mappo(game: TaskGame, budget: Budget, options: Mapping[str, Any], joint: bool) -> dict[str, Any]:
    episodes = max(1, budget.env_steps // budget.iterations // game.episode_steps())
    minibatch = max(1, round(episodes * options["num_epochs"] * budget.iterations / budget.updates))
    return {
        "num_envs_per_env_runner": episodes,
        "train_batch_size_per_learner": min(minibatch, episodes),
        "max_skipped_updates": None,
    }


def _ppo(game: TaskGame, budget: Budget, options: Mapping[str, Any], joint: bool) -> dict[str, Any]:
    steps, episode = budget.env_steps // budget.iterations, game.episode_steps()
    rows = steps * (episode + 1) // episode  # RLlib adds a row to each episode, for the value at its end
    minibatch = max(1, rows * options["num_epochs"] * budget.iterations // budget.updates)
    if options.get("share_parameters"):  # one network sees the steps of all agents
        minibatch *= len(game.judge_env().agents)
    return {"train_batch_size_per_learner": steps, "minibatch_size": min(minibatch, steps)}


def _dqn(game: TaskGame, budget: Budget, options: Mapping[str, Any], joint: bool) -> dict[str, Any]:
    steps = budget.env_steps // budget.iterations
    intensity = options["train_batch_size_per_learner"] * budget.updates / budget.env_steps
    return {
        "training_intensity": intensity,  # steps replayed for each step taken
        "min_sample_timesteps_per_iteration": steps,
        "rollout_fragment_length": min(game.episode_steps(), 5),
        "epsilon": [[0, 1.0], [int(EXPLORATION_SHARE * budget.env_steps), 0.05]],
    }


_BUDGETED = {"team": _team, "MAPPO": _mappo, "PPO": _ppo, "DQN": _dqn}
"""Kind → function that returns the options that follow from a budget."""
