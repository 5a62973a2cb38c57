"""Environments for the runner: natively batched ones, or others that are stepped in a loop.

The runner uses the batched protocol of :class:`marca_env.envs.batched_env.BatchedRecommender`: ``num_envs``,
``agents``, ``observation_sizes``, ``action_sizes``, ``state_size``, ``max_steps``, ``reset(seed)``, ``step(actions)``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from ray.rllib.env.env_context import EnvContext

from agents.rllib.envs.adapters import adapt
from agents.rllib.envs.env_watch import SimulatorError
from agents.rllib.envs.lookup import ENVS, env_name, find_factory, missing_package
from agents.rllib.envs.sequential_env import SequentialEnv
from agents.tasks.registry import find_task
from agents.team.single_controller import controller_view
from marca_env.utils.errors import InputError, one_line, unknown_option

__all__ = ["ENVS", "SequentialEnv", "build_env", "call_factory", "find_factory", "make_batched"]

_STRICT = {"on_illegal": "error"}
"""Default options of :data:`ENVS`: a learner that ignores the mask is an error."""


def make_batched(
    env: Any,
    num_envs: int,
    env_config: Mapping[str, Any] | None = None,
    *,
    joint: bool = False,
    max_steps: int | None = None,
    team_reward: str | None = None,
) -> Any:
    """Build B sub-environments behind the batched protocol.

    Args:
        env: a name (:mod:`agents.rllib.envs.lookup`), or a callable. A callable with a ``num_envs`` parameter returns a
            batched environment. Any other returns one environment of a kind that :mod:`agents.rllib.envs.adapters`
            knows, of which ``num_envs`` are stepped in a loop.
        num_envs: B.
        env_config: keyword arguments of the environment.
        joint: whether to merge the agents into one controller.
        max_steps: longest episode, for environments that do not state it.
        team_reward: ``mean`` or ``sum`` of the agents' rewards; ``None``: as the public task is reported, else mean. A
            batched environment has one reward already.

    Raises:
        InputError: an unknown name, a package that is not installed, an environment that is not cooperative with
            discrete actions, or a ``team_reward`` that has no effect.
    """
    made = build_env(env, env_config, num_envs)
    if not hasattr(made, "observation_sizes"):
        others = (build_env(env, env_config, num_envs) for _ in range(num_envs - 1))
        kind = team_reward or getattr(made, "team_reward", None) or "mean"
        made = SequentialEnv([made, *others], max_steps, kind)
    elif team_reward not in (None, "mean"):
        raise InputError(
            f"team_reward is {team_reward!r}, but {type(made).__name__} has one reward for the whole team; remove it"
        )
    return controller_view(made) if joint else made


def build_env(
    env: Any, env_config: Mapping[str, Any] | None = None, num_envs: int = 1, *, teams_only: bool = True
) -> Any:
    """Build one environment, or a batched one with ``num_envs`` sub-environments, and adapt its interface.

    Returns:
        See :func:`agents.rllib.envs.adapters.adapt`.

    Raises:
        InputError: see :func:`make_batched`.
    """
    task = find_task(env) if isinstance(env, str) else None
    defaults = _STRICT if isinstance(env, str) and env in ENVS else task.options if task else {}
    options = {**defaults, **(env_config or {})}
    return adapt(_built(env, num_envs, options), env_name(env), options, task, teams_only=teams_only)


def _built(env: Any, num_envs: int, options: dict[str, Any]) -> Any:
    """Call the factory of an environment; an error in it becomes one line."""
    factory = find_factory(env)
    try:
        return call_factory(factory, num_envs, options)
    except InputError:
        raise
    except Exception as error:
        cause = next((e for e in (error, error.__cause__, error.__context__) if isinstance(e, ImportError)), None)
        if cause is not None:
            raise missing_package(str(env), cause) from error
        raise SimulatorError(
            f"environment {env_name(env)}: building it raised {type(error).__name__}: {one_line(error)[:150]}; "
            "check env_config"
        ) from error


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
    if takes_config:
        return factory(EnvContext(options, worker_index=0))
    return _call_with_options(factory, options, parameters)


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
        reason = one_line(error)[:100]
        raise InputError(f"env_config: {name} takes no option {match[1]!r}; remove it ({reason})") from None
