"""RLlib's configuration of a learner of the leaderboard, from a case's settings and budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig

from agents.algorithms.presets import PRESETS
from agents.rllib.core.mappo import MAPPOConfig
from agents.rllib.core.team_config import TeamConfig
from agents.rllib.training.any_algorithm import algorithm_config
from benchmarks.experiments.marl.settings import REWARD_SCALE, RLLIB, SETTINGS
from benchmarks.suite.api import Case
from benchmarks.training.trials import Trial
from marca_env.envs.rewards import REWARDS
from marca_env.utils.errors import InputError

DECISIONS = 5
"""Environment steps of an episode."""
EXPLORATION_SHARE = 0.5
"""Share of the steps over which ε falls from 1 to 0.05 (PPO explores in its own way)."""


def leaderboard_config(case: Case) -> Any:
    """Return the checked configuration of a case's method.

    Raises:
        InputError: the method is unknown, or has no such option.
    """
    algorithm, shared = RLLIB.get(case.method, (case.method, False))
    options = _options(algorithm, case)
    if shared and "minibatch_size" in options:  # its one network sees the steps of both agents
        options["minibatch_size"] = min(2 * options["minibatch_size"], options["train_batch_size_per_learner"])
    options |= {"share_parameters": True} if shared else {}
    environment = environment_options(case)
    if "reward_scale" not in options:  # RLlib's algorithms have no such option
        environment["reward"] = scaled_reward
    return Trial(run=algorithm, config={**options, "env_config": environment}, seed=case.seed).build()


def environment_options(case: Case) -> dict[str, Any]:
    """Return the options of the environment that a case's method learns in."""
    return {"scenario": case.scenario, "reward": "lagrangian", "prices": case.config["prices"]}


def scaled_reward(outcome: Any, prices: np.ndarray) -> np.ndarray:
    """Return the Lagrangian reward in units of :data:`REWARD_SCALE`."""
    return REWARDS["lagrangian"](outcome, prices) / np.float32(REWARD_SCALE)


def kind_of(config: Any) -> str:
    """Return the kind of an algorithm: ``team``, ``PPO`` or ``DQN``.

    Raises:
        InputError: the configuration is of another kind.
    """
    for kind, cls in (("team", TeamConfig), ("PPO", PPOConfig), ("DQN", DQNConfig)):
        if isinstance(config, cls) and not isinstance(config, MAPPOConfig):
            return kind
    raise InputError(f"{type(config).__name__}: the leaderboard takes presets, PPO, DQN, and what derives from them")


def _options(algorithm: str, case: Case) -> dict[str, Any]:
    """Return the options of an algorithm's kind and those that follow from the budget.

    A user's algorithm keeps its own sizes and whatever else it sets itself, except the budget.
    """
    kind = kind_of(algorithm_config(algorithm))
    iterations = int(case.config["iterations"])
    steps, updates = (int(case.budget[name]) // iterations for name in ("env_steps", "updates"))
    options = dict(case.config["settings"][kind])
    if kind == "team":
        options |= {
            "reward_scale": REWARD_SCALE,
            "num_envs_per_env_runner": steps // DECISIONS,
            "updates_per_iteration": updates,
            "epsilon": _epsilon(case),
            "max_skipped_updates": None,  # a run that has diverged is a result
        }
        if algorithm in PRESETS:
            options |= network_sizes(algorithm, case.config["settings"].get("sizes", SETTINGS["sizes"]))
        else:
            own = case.config["settings"]["own"]
            options = {name: value for name, value in options.items() if name not in own}
    elif kind == "PPO":
        rows = steps * (DECISIONS + 1) // DECISIONS  # RLlib adds a row to each episode, for the value at its end
        minibatch = max(1, rows * options["num_epochs"] // updates)
        options |= {"train_batch_size_per_learner": steps, "minibatch_size": min(minibatch, steps)}
    elif kind == "DQN":
        intensity = options["train_batch_size_per_learner"] * updates / steps  # steps replayed for each step taken
        options |= {"training_intensity": intensity, "min_sample_timesteps_per_iteration": steps}
        options |= {"epsilon": _epsilon(case)}
    return options


def _epsilon(case: Case) -> list[list[float]]:
    return [[0, 1.0], [int(EXPLORATION_SHARE * case.budget["env_steps"]), 0.05]]


def network_sizes(preset: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes of a preset's networks from those of each kind of network."""
    network = PRESETS[preset].network
    options = dict(sizes["recurrent" if network.gru else "feed-forward"])
    options |= sizes["ensemble"] if network.heads > 1 else {}
    return options | (sizes["dropout"] if network.dropout else {})
