"""Registration of names with Ray Tune: ``tune.Tuner("QMIX", param_space={"env": "marca_env/parallel-v0"})``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.registry import register_env, register_trainable

from agents.rllib.core.algorithms import ALGORITHMS
from agents.rllib.envs.make_env import ENVS, make_batched


def register() -> None:
    """Register every algorithm and environment id with ray; repeated calls are harmless."""
    for name, algorithm in ALGORITHMS.items():
        register_trainable(name, algorithm)
    for env_id in ENVS:
        register_env(env_id, _env_creator(env_id))


def _env_creator(env_id: str) -> Callable[[Any], Any]:
    return lambda context: make_batched(env_id, 1, dict(context))
