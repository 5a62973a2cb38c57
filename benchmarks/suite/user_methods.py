"""Methods by name: a preset, or a user's algorithm by its dotted path with the options that it sets."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from marca_env.utils.errors import InputError, one_line, unknown_option

RUN_OPTIONS = ("train_batch_size_per_learner", "updates_per_iteration", "split")
"""Options that are the same for all methods of an experiment."""


def check_method_name(method: str, experiment: str, valid: Iterable[str], described: str) -> None:
    """Check that a name without dots is a known method.

    Args:
        method: the name, or a dotted path.
        experiment: what takes the method, such as ``ranking``.
        valid: names of methods.
        described: what a dotted path may name, such as ``an algorithm``.

    Raises:
        InputError: unknown name; the message names the nearest one.
    """
    valid = tuple(valid)
    if "." not in method and method not in valid:
        message = unknown_option(f"method of the {experiment}", method, valid)
        raise InputError(f"{message}; or give the dotted path of {described} of yours, such as my_module.MyQMIX")


def user_options(method: str) -> dict[str, Any]:
    """Return the options that a user's algorithm sets, as plain data with classes by their dotted paths.

    These are the options in its ``defaults`` and those that differ from its preset's, without :data:`RUN_OPTIONS`.
    Empty for a name without dots.

    Raises:
        InputError: see :func:`user_config`.
    """
    if "." not in method:
        return {}
    from agents.rllib.core.algorithms import CONFIGS
    from agents.rllib.core.team_config import RLLIB_OPTIONS, TeamConfig

    config = user_config(method)
    if not isinstance(config, TeamConfig):
        return {}
    preset = CONFIGS[config.preset_name]()
    values = {name: _plain(getattr(config, name)) for name in (*config.option_names(), *RLLIB_OPTIONS)}
    return {
        name: value
        for name, value in values.items()
        if name not in RUN_OPTIONS and (name in config.defaults or value != _plain(getattr(preset, name)))
    }


def user_config(method: str) -> Any:
    """Build a new configuration of a user's algorithm.

    Args:
        method: its dotted path.

    Raises:
        InputError: it cannot be built.
    """
    from agents.rllib.training.any_algorithm import algorithm_config

    try:
        return algorithm_config(method)
    except InputError:
        raise
    except Exception as error:  # a fault in the user's class
        raise InputError(f"algorithm {method}: {type(error).__name__}: {one_line(error)}") from error


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_dotted_path))


def _dotted_path(value: Any) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
