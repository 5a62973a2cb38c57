"""Checks of what a batched environment returns; a fault becomes one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from agents.offline.episodes import Columns
from agents.rllib.envs.env_watch import SimulatorError, env_name
from agents.team.team import TeamSpec, mask_key, obs_key, turn_key
from marca_env.utils.errors import InputError, one_line


def call_env(function: Callable[..., Any], env: Any, where: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of an environment.

    Raises:
        SimulatorError: it raised an error, which is the ``__cause__``; an InputError passes unchanged.
    """
    try:
        return function(*args, **kwargs)
    except InputError:
        raise
    except Exception as error:
        fault = f"{type(error).__name__}: {one_line(error)}".rstrip(": ")
        raise SimulatorError(f"{where} of {_name(env)} failed: {fault}; fix the environment") from error


def check_step(step: Any, spec: TeamSpec, env: Any) -> None:
    """Refuse a step whose arrays do not have the shapes that the environment states.

    Raises:
        InputError: the message names agent, entry, both shapes and the environment.
    """
    if not hasattr(step, "is_on_turn"):
        raise InputError(f"{_name(env)}: reset() and step() must return a BatchedStep, not a {type(step).__name__}")
    n, observations, masks = env.num_envs, step.observations, step.masks
    for agent, size, count in zip(spec.agents, spec.observation_sizes, spec.action_sizes, strict=True):
        if getattr(observations.get(agent), "shape", None) != (n, size):
            raise _wrong_shape(observations.get(agent), (n, size), f"observations of agent {agent!r}", env)
        if getattr(masks.get(agent), "shape", None) != (n, count):
            raise _wrong_shape(masks.get(agent), (n, count), f"masks of agent {agent!r}", env)
    numbers = {"reward": step.reward, "terminated": step.terminated, "truncated": step.truncated}
    for what, values in numbers.items():
        if getattr(values, "shape", None) != (n,):
            raise _wrong_shape(values, (n,), what, env)
    if getattr(step.state, "shape", None) != (n, spec.state_size):
        raise _wrong_shape(step.state, (n, spec.state_size), "state", env)


def check_columns(columns: Columns, spec: TeamSpec, env: Any) -> None:
    """Refuse episodes with numbers that are not finite, or with an agent on turn that has no legal action.

    Raises:
        InputError: the message names the first such step, agent, entry and environment.
    """
    for agent in spec.agents:
        _check_finite(columns[obs_key(agent)], f"observation of agent {agent!r}", env)
        stuck = np.argwhere(columns[turn_key(agent)] & ~columns[mask_key(agent)].any(-1))
        if len(stuck):
            raise InputError(
                f"agent {agent!r} at step {stuck[0, 1]} of {_name(env)}: on turn, but its mask allows no action; allow "
                "one, or set on_turn to False"
            )
    if "state" in columns:
        _check_finite(columns["state"], "state", env)
    _check_finite(columns["reward"], "reward", env)


def _check_finite(values: np.ndarray, what: str, env: Any) -> None:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    _, step, *entry = np.argwhere(~np.isfinite(values))[0].tolist()
    value = values[~np.isfinite(values)][0]
    if not entry:
        step += 1  # the reward of the first step is that of step 1
    where = f" entry {entry[0]} is" if entry else " is"
    raise InputError(
        f"{what} at step {step} of {_name(env)}:{where} {value}; training stops, because nothing can be learnt from "
        "it: fix the environment to return finite numbers"
    )


def _wrong_shape(values: Any, expected: tuple[int, ...], what: str, env: Any) -> InputError:
    if values is None:
        return InputError(f"{_name(env)}: no {what}; return an array of shape {expected}")
    shape = getattr(values, "shape", None)
    found = f"a {type(values).__name__}" if shape is None else f"of shape {shape}"
    return InputError(f"{_name(env)}: {what} must be an array of shape {expected}, but is {found}")


def _name(env: Any) -> str:
    """Return the name of the environment inside views."""
    while hasattr(env, "env"):
        env = env.env
    return getattr(env, "name", None) or env_name(env)
