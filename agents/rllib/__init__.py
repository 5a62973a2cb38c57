"""The algorithms on RLlib's new API stack; the only package that imports ray (``pip install marca-env[rllib]``).

Configure an algorithm (``QMIXConfig``, …, or RLlib's own through :func:`independent` and :func:`shared`) and run it
with :func:`train`. :func:`offline_train` and :func:`online_train` are small runs with suitable defaults.
"""

from __future__ import annotations

try:
    import ray.rllib  # noqa: F401
except ImportError as error:
    raise ImportError("agents.rllib needs ray; install it with: pip install 'marca-env[rllib]'") from error

from agents.rllib.core.algorithms import (
    ALGORITHMS,
    CONFIGS,
    AveragedDQNConfig,
    AWRQMixerConfig,
    AWRQMixerV2Config,
    IQLConfig,
    JointDDQNConfig,
    JointDQNConfig,
    JointDRQNConfig,
    QMIXConfig,
    REMConfig,
    VDNConfig,
    WeightedQMIXConfig,
)
from agents.rllib.core.cluster import start_ray
from agents.rllib.core.mappo import MAPPOConfig
from agents.rllib.core.runner_pool import SamplingError
from agents.rllib.core.skipped_updates import SkippedUpdatesError
from agents.rllib.core.team_config import TeamConfig
from agents.rllib.training.algorithm_checkpoints import restore, save_checkpoint
from agents.rllib.training.any_algorithm import algorithm_config, independent, shared
from agents.rllib.training.evaluation import CheckpointPlayer
from agents.rllib.training.registration import register
from agents.rllib.training.training import offline_train, online_train, train, train_to_end

__all__ = [
    "ALGORITHMS",
    "CONFIGS",
    "AWRQMixerConfig",
    "AWRQMixerV2Config",
    "AveragedDQNConfig",
    "CheckpointPlayer",
    "IQLConfig",
    "JointDDQNConfig",
    "JointDQNConfig",
    "JointDRQNConfig",
    "MAPPOConfig",
    "QMIXConfig",
    "REMConfig",
    "SamplingError",
    "SkippedUpdatesError",
    "TeamConfig",
    "VDNConfig",
    "WeightedQMIXConfig",
    "algorithm_config",
    "independent",
    "offline_train",
    "online_train",
    "register",
    "restore",
    "save_checkpoint",
    "shared",
    "start_ray",
    "train",
    "train_to_end",
]
