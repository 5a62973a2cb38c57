"""The algorithms on RLlib's new API stack; the only place that imports ray (``pip install marca-env[rllib]``)."""

from __future__ import annotations

try:
    import ray.rllib  # noqa: F401
except ImportError as error:
    raise ImportError("agents.rllib needs ray; install it with: pip install 'marca-env[rllib]'") from error

from agents.rllib.core.config import (
    CONFIGS,
    AveragedDQNConfig,
    AWRQMixerConfig,
    IQLConfig,
    JointDDQNConfig,
    JointDQNConfig,
    JointDRQNConfig,
    QMIXConfig,
    REMConfig,
    TeamConfig,
    VDNConfig,
    WeightedQMIXConfig,
)
from agents.rllib.training.any_algorithm import independent, shared
from agents.rllib.training.registration import register
from agents.rllib.training.training import offline_train, online_train, train, train_to_end

__all__ = [
    "CONFIGS",
    "AWRQMixerConfig",
    "AveragedDQNConfig",
    "IQLConfig",
    "JointDDQNConfig",
    "JointDQNConfig",
    "JointDRQNConfig",
    "QMIXConfig",
    "REMConfig",
    "TeamConfig",
    "VDNConfig",
    "WeightedQMIXConfig",
    "independent",
    "offline_train",
    "online_train",
    "register",
    "shared",
    "train",
    "train_to_end",
]
