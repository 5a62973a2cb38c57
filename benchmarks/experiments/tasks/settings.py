"""Methods of the leaderboard of tasks, their options, and what of them is searched; the same for all tasks.

Every method gets the same environment steps, gradient steps and widths of layers, and as many trials of a search over
as many options.
"""

from __future__ import annotations

from typing import Any

from agents.algorithms.presets import PRESETS
from benchmarks.suite.user_methods import user_options

RLLIB = {"PPO": "PPO", "DQN": "DQN"}
"""RLlib's own algorithms, with a policy or a value function for each agent, and their kinds."""
KINDS = ("team", "MAPPO", "PPO", "DQN")
METHODS = (*PRESETS, "MAPPO", *RLLIB)
REFERENCES = ("random", "static", "joint")
SIZES: dict[str, Any] = {
    "recurrent": {"gru": 64, "hidden": [64]},
    "feed-forward": {"gru": None, "hidden": [64, 64]},
    "ensemble": {"heads": 5},
    "dropout": {"dropout": 0.0, "weighting_level": "batch"},
}
"""Sizes of the presets by their kind of network, as on the leaderboard ``marl``."""
BATCH_STEPS = 640
"""Environment steps in a minibatch of whole episodes; at least :data:`LEAST_EPISODES` episodes."""
LEAST_EPISODES = 4
WARM_UP_STEPS = 500
"""Environment steps before the first gradient step."""
SETTINGS: dict[str, dict[str, Any]] = {
    "team": {"lr": 3e-3, "tau": 0.02, "gamma": 1.0},
    "MAPPO": {
        "lr": 3e-3,
        "gamma": 1.0,
        "lambda_": 0.95,
        "entropy_coeff": 0.01,
        "num_epochs": 5,
        "gru": None,
        "hidden": [64, 64],
        "critic_hidden": [64, 64],
    },
    "PPO": {
        "lr": 3e-3,
        "gamma": 1.0,
        "lambda_": 0.95,
        "entropy_coeff": 0.01,
        "num_epochs": 5,
        "num_envs_per_env_runner": 20,
        "model_config": {"fcnet_hiddens": [64, 64]},
    },
    "DQN": {
        "lr": 3e-3,
        "gamma": 1.0,
        "tau": 0.02,
        "train_batch_size_per_learner": 128,  # steps: its buffer takes time for every one of them
        "target_network_update_freq": 1,
        "num_steps_sampled_before_learning_starts": WARM_UP_STEPS,
        "num_envs_per_env_runner": 20,
        "replay_buffer_config": {"type": "MultiAgentEpisodeReplayBuffer", "capacity": 20_000},
        "model_config": {"fcnet_hiddens": [64, 64], "head_fcnet_hiddens": []},
    },
}
"""Options beyond the budget by kind of algorithm; those that are searched are the first trial's."""
SPACES: dict[str, dict[str, dict[str, list[float]]]] = {
    "team": {"lr": {"loguniform": [1e-3, 1e-2]}, "tau": {"loguniform": [5e-3, 1e-1]}},
    "MAPPO": {"lr": {"loguniform": [1e-3, 1e-2]}, "entropy_coeff": {"loguniform": [1e-3, 3e-2]}},
    "PPO": {"lr": {"loguniform": [1e-3, 1e-2]}, "entropy_coeff": {"loguniform": [1e-3, 3e-2]}},
    "DQN": {"lr": {"loguniform": [1e-3, 1e-2]}, "tau": {"loguniform": [5e-3, 1e-1]}},
}
"""Kind → option → its draw, as in ``benchmarks/experiments/tuning``."""
WINDOW_SPACE: dict[str, dict[str, list[float]]] = {"gamma": {"choice": [0.98, 0.995, 1.0]}}
"""What is searched besides where an episode is a window of requests."""
WINDOW_SETTINGS: dict[str, Any] = {"gamma": 0.995}
"""Options of the first trial where an episode is a window of requests."""
TRIALS, QUICK_TRIALS = 4, 2
"""Trials of a search; the first has the settings above."""
TUNING_SEED = 100
"""Seed of all trials and of their draws, beside those of the runs that are reported."""
TUNING_SHARE = 0.5
"""Share of a run's budget that a trial has."""


def method_settings(method: str, *, window: bool) -> dict[str, Any]:
    """Return the options, sizes and search space that may matter to a method; they are part of its cases.

    Args:
        method: a name of :data:`METHODS`, a preset, or the dotted path of a user's algorithm.
        window: whether episodes are windows of requests.
    """
    if method in REFERENCES:
        return {}
    kinds: tuple[str, ...] = KINDS if "." in method else (RLLIB.get(method, "MAPPO" if method == "MAPPO" else "team"),)
    settings = {kind: SETTINGS[kind] | (WINDOW_SETTINGS if window else {}) for kind in kinds}
    spaces = {kind: SPACES[kind] | (WINDOW_SPACE if window else {}) for kind in kinds}
    out: dict[str, Any] = {"settings": settings, "spaces": spaces}
    if "team" in kinds:
        out["sizes"] = SIZES
    return out | ({"own": user_options(method)} if "." in method else {})
