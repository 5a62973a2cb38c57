"""Options of any RLlib configuration by their flat names, validated first because RLlib accepts misspelt ones."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.util.debug import log_once

from agents.rllib.core.team_config import TeamConfig
from marca_env.utils.errors import InputError, one_line, unknown_option


def apply_options(config: AlgorithmConfig, options: Mapping[str, Any]) -> AlgorithmConfig:
    """Set options by their flat names, as ``--config`` and experiment files contain them.

    Options are those of a preset, those of ``config.training(...)``, and any other setting of an ``AlgorithmConfig``
    (``num_env_runners``, ``evaluation_interval``, …). ``model_config`` takes a dict of RLlib's DefaultModelConfig.

    Raises:
        InputError: an unknown option (the message names the nearest), or a value of another type than the default.
    """
    options = dict(options)
    model = options.pop("model_config", None)
    if model is not None:
        config.rl_module(model_config=_model_config(model))
    training = _training_names(config)
    settings = {n for n in vars(config) if not n.startswith("_")} - set(training) | {"model_config", "env_config"}
    training_options = {name: options.pop(name) for name in list(options) if name in training}
    for name, value in options.items():
        if name not in settings:
            raise InputError(unknown_option("option", name, settings | set(training) | {"share_parameters"}))
        if not isinstance(config, TeamConfig) or name in ("evaluation_interval", "evaluation_duration"):
            _check_type(name, getattr(config, name), value)
    if isinstance(config, TeamConfig):
        config.training(**training_options)
    else:
        for name, value in training_options.items():
            _check_type(name, getattr(config, name, None), value)
        try:
            config.training(**training_options)
        except (TypeError, ValueError) as error:
            raise InputError(f"{type(config).__name__}: {one_line(error)}") from None
    return config.update_from_dict(options)


def _training_names(config: AlgorithmConfig) -> set[str]:
    """Return the names of the options that ``config.training`` takes."""
    if isinstance(config, TeamConfig):
        rllib = set(inspect.signature(AlgorithmConfig.training).parameters)
        return {*config.option_names(), *rllib} - {"self"}
    names: set[str] = set()
    for cls in type(config).__mro__:
        if "training" in vars(cls):
            parameters = inspect.signature(vars(cls)["training"]).parameters.values()
            names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    return names - {"self", "model"}


def _model_config(values: Any) -> DefaultModelConfig:
    if not isinstance(values, Mapping):
        raise InputError(f"model_config is {values!r}; use a mapping with the fields of RLlib's DefaultModelConfig")
    names = [f.name for f in fields(DefaultModelConfig)]
    for name in values:
        if name not in names:
            raise InputError(unknown_option("field of model_config", name, names))
    return DefaultModelConfig(**values)


def _check_type(name: str, default: Any, value: Any) -> None:
    kinds: tuple[tuple[Any, tuple[type, ...], str], ...] = (
        (bool, (bool,), "true or false"),
        ((int, float), (int, float, list), "a number"),
        (str, (str,), "a string"),
        (dict, (dict,), "a mapping"),
    )
    for kind, accepted, expected in kinds:
        if isinstance(default, kind):
            fits = isinstance(value, accepted) and (bool in accepted or not isinstance(value, bool))
            if not fits and value is not None and not (value == "auto" or default == "auto"):
                raise InputError(f"{name} is {value!r}; it must be {expected} (default: {default!r})")
            return


def validate_config(config: AlgorithmConfig) -> AlgorithmConfig:
    """Run RLlib's checks on a copy of ``config`` and return ``config``.

    Raises:
        InputError: an error that RLlib found, on one line.
    """
    name = config.algo_class.__name__ if config.algo_class else type(config).__name__
    log_once(f"{name}_on_new_api_stack")  # mark RLlib's advice to look at the old API stack as logged already
    try:
        config.copy(copy_frozen=False).validate()
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise InputError(f"{name}: {one_line(error)}") from None
    return config
