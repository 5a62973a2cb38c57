"""Spaces of an environment's agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym

from marca_env.utils.errors import InputError


def agent_space(env: Any, kind: str, agent: Any) -> gym.Space:
    """Return the ``observation`` or ``action`` space of an agent.

    Raises:
        InputError: the environment does not state it.
    """
    table = getattr(env, f"{kind}_spaces", None) if not hasattr(env, f"get_{kind}_space") else None
    if isinstance(table, Mapping) and agent in table:
        return table[agent]
    getter = getattr(env, f"get_{kind}_space", None) or getattr(env, f"{kind}_space", None)
    space = None
    if isinstance(getter, gym.spaces.Dict) and agent in getter.spaces:
        space = getter[agent]
    elif isinstance(getter, gym.Space):
        space = getter
    elif callable(getter):
        try:
            space = getter(agent)
        except (KeyError, AttributeError, TypeError):
            space = None
    if not isinstance(space, gym.Space):
        raise InputError(
            f"{type(env).__name__}: no {kind} space of agent {agent!r}; return a gymnasium space from "
            f"{kind}_space(agent)"
        )
    return space
