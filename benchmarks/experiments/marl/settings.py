"""Methods of the leaderboard, and the options that they are given."""

from __future__ import annotations

from typing import Any

from benchmarks.offline.offline_runs import METHODS as PAPER_METHODS
from benchmarks.suite.user_methods import user_options

RLLIB = {"PPO independent": ("PPO", False), "PPO shared": ("PPO", True), "DQN independent": ("DQN", False)}
"""Name → RLlib's algorithm, and whether the agents share one network."""
PRESET_METHODS = (*PAPER_METHODS, "AWRQMixerV2")
METHODS = (*PRESET_METHODS, *RLLIB)
REFERENCES = ("random", "best single action", "optimum")
REWARD_SCALE = 0.05
"""What rewards are divided by in training, for all methods: about what a good action earns."""
SETTINGS: dict[str, dict[str, Any]] = {
    "sizes": {
        "recurrent": {"gru": 64, "hidden": [64]},
        "feed-forward": {"gru": None, "hidden": [64, 64]},
        "ensemble": {"heads": 5},
        "dropout": {"dropout": 0.0, "weighting_level": "batch"},
    },
    "team": {
        "gamma": 1.0,
        "lr": 2e-3,
        "train_batch_size_per_learner": 128,  # episodes, of five steps
        "tau": 0.02,
        "learning_starts": 100,
        "buffer_capacity": 4_000,
    },
    "PPO": {
        "gamma": 1.0,
        "lr": 2e-3,
        "lambda_": 1.0,
        "num_epochs": 5,
        "num_envs_per_env_runner": 20,
        "model_config": {"fcnet_hiddens": [64, 64]},
    },
    "DQN": {
        "gamma": 1.0,
        "lr": 2e-3,
        "train_batch_size_per_learner": 128,  # steps: its buffer takes time for every one of them
        "tau": 0.02,
        "target_network_update_freq": 1,
        "num_steps_sampled_before_learning_starts": 100,
        "num_envs_per_env_runner": 20,
        "rollout_fragment_length": 5,
        "replay_buffer_config": {"type": "MultiAgentEpisodeReplayBuffer", "capacity": 20_000},
        "model_config": {"fcnet_hiddens": [64, 64], "head_fcnet_hiddens": []},
    },
}
"""Options beyond the budget by kind of algorithm, and the sizes of the presets by their kind of network.

Every network has two layers of 64 units. Episodes are five steps with the reward at the end, which needs no discount.
The presets' options are a first guess. PPO's and DQN's are as near to them as RLlib allows, and were checked on a seed
that is not reported.
"""


def method_settings(method: str) -> dict[str, Any]:
    """Return the part of :data:`SETTINGS` that may matter to a method, and the options that a user's method sets.

    They are part of the method's cases: where they change, the cases are other ones.
    """
    if method in REFERENCES:
        return {}
    if method in PRESET_METHODS:
        kinds: tuple[str, ...] = ("team", "sizes")
    elif method in RLLIB:
        kinds = (RLLIB[method][0],)
    else:
        kinds = ("team", "PPO", "DQN")
    own = {"own": user_options(method)} if "." in method else {}
    return {kind: SETTINGS[kind] for kind in kinds} | own
