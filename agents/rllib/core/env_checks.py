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
    n = env.num_envs
    for agent, size, count in zip(spec.agents, spec.observation_sizes, spec.action_sizes, strict=True):
        for what, values, expected in (
            ("observations", step.observations, (n, size)),
            ("masks", step.masks, (n, count)),
        ):
            if agent not in values:
                raise InputError(f"{_name(env)}: no {what} of agent {agent!r}; return an array of shape {expected}")
            _check_shape(values[agent], expected, f"{what} of agent {agent!r}", env)
    _check_shape(step.state, (n, spec.state_size), "state", env)
    for what in ("reward", "terminated", "truncated"):
        _check_shape(getattr(step, what), (n,), what, env)


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


def _check_shape(values: Any, expected: tuple[int, ...], what: str, env: Any) -> None:
    shape = getattr(values, "shape", None)
    if shape != expected:
        found = f"a {type(values).__name__}" if shape is None else f"of shape {shape}"
        raise InputError(f"{_name(env)}: {what} must be an array of shape {expected}, but is {found}")


def _name(env: Any) -> str:
    """Return the name of the environment inside views."""
    while hasattr(env, "env"):
        env = env.env
    return getattr(env, "name", None) or env_name(env)
