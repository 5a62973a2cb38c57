"""Environments for the runner: natively batched ones as they are, PettingZoo and RLlib ones looped over.

The runner drives the batched protocol of :class:`marca_env.envs.batched_env.BatchedRecommender`: ``num_envs``, ``agents``,
``observation_sizes``, ``action_sizes``, ``state_size``, ``max_steps``, ``reset(seed)`` and ``step(actions)``.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.registry import ENV_CREATOR, _global_registry

from agents.rllib.envs.sequential_env import LoopedEnv
from agents.team.single_controller import joint_view
from marca_env.utils.errors import InputError, one_line, unknown_option

ENVS = {"marca_env/parallel-v0": "marca_env.envs.batched_env:BatchedRecommender"}
"""Ids that :func:`agents.rllib.register` makes known to RLlib, and the batched environment behind each."""


def make_batched(
    env: Any,
    num_envs: int,
    env_config: Mapping[str, Any] | None = None,
    *,
    joint: bool = False,
    max_steps: int | None = None,
) -> Any:
    """Build B sub-environments behind the batched protocol.

    Args:
        env: an id of :data:`ENVS`, a name registered with RLlib, a dotted path (``package.module.Name``), or a
            callable. A callable with a ``num_envs`` parameter makes a batched environment; any other makes one
            PettingZoo ParallelEnv or RLlib MultiAgentEnv, of which ``num_envs`` are looped over.
        num_envs: B.
        env_config: keyword arguments of the environment.
        joint: merge the agents into one controller.
        max_steps: longest episode, for environments that do not say.

    Raises:
        InputError: an unknown name, or an environment that is not cooperative with discrete actions.
    """
    options = dict(env_config or {})
    maker = find_maker(env)
    made = call_maker(maker, num_envs, options)
    if not hasattr(made, "observation_sizes"):
        made = LoopedEnv([made, *(call_maker(maker, num_envs, options) for _ in range(num_envs - 1))], max_steps)
    return joint_view(made) if joint else made


def find_maker(env: Any) -> Callable[..., Any]:
    """What makes an environment: see ``env`` of :func:`make_batched`.

    Raises:
        InputError: an unknown name, or something that cannot be called.
    """
    if not isinstance(env, str):
        if not callable(env):
            raise InputError(f"environment {env!r}: give an id, a dotted path or a callable")
        return env
    if env in ENVS:
        module, name = ENVS[env].split(":")
        return getattr(importlib.import_module(module), name)

    if _global_registry.contains(ENV_CREATOR, env):
        return _global_registry.get(ENV_CREATOR, env)
    module, _, name = env.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        hint = unknown_option("environment", env, ENVS)
        raise InputError(
            f"{hint}; or a name registered with RLlib, or the dotted path of a class or function"
            + (f": {error}" if module else "")
        ) from None


def call_maker(maker: Callable[..., Any], num_envs: int, options: dict[str, Any]) -> Any:
    """Make an environment; ``num_envs`` is told to those that ask for it, and RLlib's kind gets its one dict.

    Raises:
        InputError: an option that it does not take, or one that it lacks.
    """
    parameters = inspect.signature(maker).parameters
    if "num_envs" in parameters:
        return _made(maker, {"num_envs": num_envs, **options}, parameters)
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_config = (
        len(positional) == 1
        and positional[0].name not in options
        and (positional[0].default is inspect.Parameter.empty or positional[0].name in ("config", "env_config", "cfg"))
    )
    return maker(options) if takes_config else _made(maker, options, parameters)


def _made(maker: Callable[..., Any], options: dict[str, Any], parameters: Mapping[str, Any]) -> Any:
    """Call ``maker``; a keyword that it does not take, or one that it lacks, is bad input."""
    name = getattr(maker, "__name__", type(maker).__name__)
    named = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in options:
        if option not in named and not takes_any:
            raise InputError(f"env_config: {unknown_option(f'option of {name}', option, named - {'num_envs'})}")
    missing = [n for n in named if parameters[n].default is inspect.Parameter.empty and n not in options]
    if missing:
        raise InputError(f"env_config: {name} needs {', '.join(sorted(missing))}; give a value for each")
    try:
        return maker(**options)
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if found is None or found[1] not in options:
            raise
        raise InputError(f"env_config: {name} takes no option {found[1]!r}; remove it ({one_line(error)})") from None
