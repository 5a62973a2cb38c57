"""Factory of environments for the runner: natively batched ones, or PettingZoo and RLlib ones stepped in a loop.

The runner uses the batched protocol of :class:`marca_env.envs.batched_env.BatchedRecommender`: ``num_envs``,
``agents``, ``observation_sizes``, ``action_sizes``, ``state_size``, ``max_steps``, ``reset(seed)``, ``step(actions)``.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.registry import ENV_CREATOR, _global_registry

from agents.rllib.envs.sequential_env import SequentialEnv
from agents.team.single_controller import controller_view
from marca_env.utils.errors import InputError, one_line, unknown_option

ENVS = {"marca_env/parallel-v0": "marca_env.envs.batched_env:batched_env"}
"""Ids that :func:`agents.rllib.register` registers with RLlib, and the batched environment of each."""
_STRICT = {"on_illegal": "error"}
"""Default options of :data:`ENVS`: a learner that ignores the mask is an error."""


def make_batched(
    env: Any,
    num_envs: int,
    env_config: Mapping[str, Any] | None = None,
    *,
    joint: bool = False,
    max_steps: int | None = None,
    team_reward: str = "mean",
) -> Any:
    """Build B sub-environments behind the batched protocol.

    Args:
        env: an id of :data:`ENVS`, a name registered with RLlib, a dotted path (``package.module.Name``), or a
            callable. A callable with a ``num_envs`` parameter returns a batched environment; any other returns one
            PettingZoo ParallelEnv or RLlib MultiAgentEnv, of which ``num_envs`` are stepped in a loop.
        num_envs: B.
        env_config: keyword arguments of the environment.
        joint: whether to merge the agents into one controller.
        max_steps: longest episode, for environments that do not state it.
        team_reward: ``mean`` or ``sum`` of the agents' rewards; a batched environment has one reward already.

    Raises:
        InputError: an unknown name, an environment that is not cooperative with discrete actions, or a
            ``team_reward`` that has no effect.
    """
    options = {**(_STRICT if isinstance(env, str) and env in ENVS else {}), **(env_config or {})}
    factory = find_factory(env)
    made = call_factory(factory, num_envs, options)
    if not hasattr(made, "observation_sizes"):
        others = (call_factory(factory, num_envs, options) for _ in range(num_envs - 1))
        made = SequentialEnv([made, *others], max_steps, team_reward)
    elif team_reward != "mean":
        raise InputError(
            f"team_reward is {team_reward!r}, but {type(made).__name__} has one reward for the whole team; remove it"
        )
    return controller_view(made) if joint else made


def find_factory(env: Any) -> Callable[..., Any]:
    """Return the callable that builds an environment; see ``env`` of :func:`make_batched`.

    Raises:
        InputError: an unknown name, or an object that is not callable.
    """
    if not isinstance(env, str):
        if not callable(env):
            raise InputError(f"environment {env!r}: use an id, a dotted path or a callable")
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


def call_factory(factory: Callable[..., Any], num_envs: int, options: dict[str, Any]) -> Any:
    """Build an environment.

    ``num_envs`` is passed to factories that have this parameter. An RLlib environment gets all options as one dict.

    Raises:
        InputError: an unknown option, or a missing one.
    """
    parameters = inspect.signature(factory).parameters
    if "num_envs" in parameters:
        return _call_with_options(factory, {"num_envs": num_envs, **options}, parameters)
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_config = (
        len(positional) == 1
        and positional[0].name not in options
        and (positional[0].default is inspect.Parameter.empty or positional[0].name in ("config", "env_config", "cfg"))
    )
    return factory(options) if takes_config else _call_with_options(factory, options, parameters)


def _call_with_options(factory: Callable[..., Any], options: dict[str, Any], parameters: Mapping[str, Any]) -> Any:
    """Call ``factory`` and raise InputError for unknown or missing options."""
    name = getattr(factory, "__name__", type(factory).__name__)
    named = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in options:
        if option not in named and not takes_any:
            raise InputError(f"env_config: {unknown_option(f'option of {name}', option, named - {'num_envs'})}")
    missing = [n for n in named if parameters[n].default is inspect.Parameter.empty and n not in options]
    if missing:
        raise InputError(f"env_config: {name} needs {', '.join(sorted(missing))}; set a value for each")
    try:
        return factory(**options)
    except TypeError as error:
        match = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if match is None or match[1] not in options:
            raise
        raise InputError(f"env_config: {name} takes no option {match[1]!r}; remove it ({one_line(error)})") from None
