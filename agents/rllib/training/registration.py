"""Names for Tune: ``tune.Tuner("QMIX", param_space={"env": "marca_env/parallel-v0"})``."""

from __future__ import annotations

from typing import Any

from ray.tune.registry import register_env, register_trainable

from agents.rllib.core import algorithm
from agents.rllib.core.config import CONFIGS
from agents.rllib.envs.make_env import ENVS, make_batched


def register() -> None:
    """Register every algorithm and environment id with ray; calling it again does no harm."""
    for name in CONFIGS:
        register_trainable(name, getattr(algorithm, name))
    for env_id in ENVS:
        register_env(env_id, _creator(env_id))


def _creator(env_id: str) -> Any:
    return lambda context: make_batched(env_id, 1, dict(context))
