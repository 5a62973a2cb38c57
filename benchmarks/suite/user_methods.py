"""Methods by name: a preset, or an algorithm of one's own by its dotted path, and what that sets itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from marca_env.utils.errors import InputError, one_line, unknown_option

OF_A_RUN = ("train_batch_size_per_learner", "updates_per_iteration", "split")
"""Options that are alike for all methods."""


def check_name(method: str, where: str, valid: Iterable[str], own: str) -> None:
    """Refuse a name without dots that is none of the valid ones.

    Args:
        method: the name, or a dotted path.
        where: what takes it, such as ``ranking``.
        valid: names.
        own: what a dotted path may lead to, such as ``an algorithm``.

    Raises:
        InputError: it is none; the message names the nearest.
    """
    valid = tuple(valid)
    if "." not in method and method not in valid:
        told = unknown_option(f"method of the {where}", method, valid)
        raise InputError(f"{told}; or the dotted path of {own} of your own, such as my_module.MyQMIX")


def own_options(method: str) -> dict[str, Any]:
    """What an algorithm of one's own, given by its dotted path, sets itself: the options in ``defaults``, and those
    that differ from its preset's, those of :data:`OF_A_RUN` apart; as plain data, classes by their dotted paths.

    Raises:
        InputError: see :func:`own_config`.
    """
    if "." not in method:
        return {}
    from agents.rllib.core.config import CONFIGS, RLLIB_OPTIONS, TeamConfig

    config = own_config(method)
    if not isinstance(config, TeamConfig):
        return {}
    usual = CONFIGS[config.preset_name]()
    values = {name: _plain(getattr(config, name)) for name in (*config.option_names(), *RLLIB_OPTIONS)}
    return {
        name: value
        for name, value in values.items()
        if name not in OF_A_RUN and (name in config.defaults or value != _plain(getattr(usual, name)))
    }


def own_config(method: str) -> Any:
    """A fresh configuration of an algorithm of one's own.

    Args:
        method: its dotted path.

    Raises:
        InputError: it cannot be made.
    """
    from agents.rllib.training.any_algorithm import algorithm_config

    try:
        return algorithm_config(method)
    except InputError:
        raise
    except Exception as error:  # a fault in the user's own class
        raise InputError(f"algorithm {method}: {type(error).__name__}: {one_line(error)}") from error


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_dotted_path))


def _dotted_path(value: Any) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
