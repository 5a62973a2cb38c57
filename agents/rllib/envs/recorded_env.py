"""Environment of a training as plain data in its policy folder, so that an evaluation needs no pickle."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from ray.tune.registry import ENV_CREATOR

from agents.rllib.envs.lookup import ENVS, aec_registry, parallel_registry, registered_with_tune
from agents.tasks.registry import find_task
from marca_env.utils.errors import InputError

ALGORITHM, ENV, ENV_CONFIG = "algorithm", "env", "env_config"
"""Entries of the record: class of the configuration, name of the environment, its arguments."""
_PLAIN = ("max_episode_steps", "team_reward")


def describe_environment(config: Any) -> dict[str, Any]:
    """Return the environment of a configuration as plain data, for :func:`read_environment`.

    What has no plain form is ``None``: a function within a function, or arguments that are objects.
    """
    kind = type(config)
    return {
        ALGORITHM: f"{kind.__module__}.{kind.__qualname__}",
        ENV: config.env if isinstance(config.env, str) or config.env is None else _dotted_path(config.env),
        ENV_CONFIG: _plain(dict(config.env_config or {})),
        **{name: _plain(getattr(config, name, None)) for name in _PLAIN},
    }


def read_environment(recorded: Any, where: str) -> dict[str, Any]:
    """Return the record of :func:`describe_environment` with all of its entries, checked; nothing is imported.

    Args:
        recorded: the record; ``None`` in policies of earlier versions.
        where: its file, for messages.

    Raises:
        InputError: an entry of the wrong type.
    """
    if recorded is None:
        recorded = {}
    kinds: dict[str, Any] = {
        ALGORITHM: str | None,
        ENV: str | None,
        ENV_CONFIG: Mapping | None,
        "max_episode_steps": int | None,
        "team_reward": str | None,
    }
    if not isinstance(recorded, Mapping):
        raise InputError(f"{where}: environment is {recorded!r}; export the policy again, or pass --env")
    for name, kind in kinds.items():
        if not isinstance(recorded.get(name), kind):
            raise InputError(f"{where}: environment: {name} is {recorded[name]!r}; export the policy again")
    return {name: recorded.get(name) for name in kinds}


def needs_code(env: str) -> bool:
    """Return whether a name is a path whose code would be imported, not the id of a registered environment."""
    known = any(env in registry for registry in (ENVS, gym.registry, parallel_registry, aec_registry))
    return not (known or registered_with_tune(ENV_CREATOR, env) is not None or find_task(env) is not None)


def _dotted_path(env: Any) -> str | None:
    """Return the path at which a class or function can be imported; ``None`` if it cannot."""
    module, name = getattr(env, "__module__", None), getattr(env, "__qualname__", None)
    if not module or not name or module == "__main__":
        return None
    try:
        return f"{module}.{name}" if getattr(importlib.import_module(module), name, None) is env else None
    except ImportError:
        return None


def _plain(value: Any) -> Any:
    """Return plain data as it is, and ``None`` for anything else."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return None
    return json.loads(text) if json.loads(text) == _without_tuples(value) else None


def _without_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_tuples(inner) for key, inner in value.items()}
    return [_without_tuples(inner) for inner in value] if isinstance(value, (list, tuple)) else value
