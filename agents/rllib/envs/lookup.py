"""Find an environment by its name: ids, modules, dotted paths, names registered with RLlib.

| name | environment |
|---|---|
| ``marca_env/parallel-v0``, ``games/climbing-v0`` | ids of this package and of :mod:`agents.tasks.registry` |
| ``CartPole-v1``, ``lbforaging:Foraging-5x5-2p-1f-v3`` | ids of Gymnasium; the module before a colon is imported |
| ``mpe2.simple_spread_v3`` | a PettingZoo module: its ``parallel_env``, or else its ``env`` |
| ``my_module:make``, ``my_module.MyEnv`` | a function or a class |
| ``sisl/pursuit-v5`` | ids of PettingZoo |
| any other | a name registered with RLlib |
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import gymnasium as gym
from pettingzoo.utils.deprecated_module import DeprecatedModule
from ray.tune.registry import ENV_CREATOR, _global_registry

from agents.rllib.envs.gymnasium_team import make_gymnasium
from agents.tasks.registry import TASKS, describe_tasks, find_task
from marca_env.utils.errors import InputError, one_line

try:  # PettingZoo 1.27 and later
    from pettingzoo.env_registry.registration import aec_registry, parallel_registry
    from pettingzoo.env_registry.registration import make as make_pettingzoo
except ImportError:
    aec_registry, parallel_registry = {}, {}

ENVS = {"marca_env/parallel-v0": "marca_env.envs.batched_env:batched_env"}
"""Ids that :func:`agents.rllib.register` registers with RLlib, and the batched environment of each."""
MAKERS = ("parallel_env", "env", "raw_env")
"""Functions of a PettingZoo module that build its environment, the preferred first."""
INSTALL = {
    "mpe2": "'marca-env[marl]'",
    "lbforaging": "'marca-env[marl]'",
    "rware": "rware",
    **{
        f"{start}{family}.": f"'pettingzoo[{family}]'"
        for start in ("pettingzoo.", "")
        for family in ("atari", "butterfly", "classic", "sisl")
    },
}
"""Start of a name → what pip installs for it."""
_HELP = "see marca train --env list, or use the dotted path of a class or function, or a name registered with RLlib"


def list_environments() -> dict[str, str]:
    """Return ids with one line about each; every environment of :mod:`agents.rllib.envs.lookup` works besides."""
    return {"marca_env/parallel-v0": "requests of a cascade recommender, one after the other", **describe_tasks()}


def find_factory(env: Any) -> Callable[..., Any]:
    """Return the callable that builds an environment.

    Args:
        env: a name (see :mod:`agents.rllib.envs.lookup`), or a callable.

    Raises:
        InputError: an unknown name, a package that is not installed, or an object that is not callable.
    """
    if not isinstance(env, str):
        if not callable(env):
            raise InputError(f"environment {env!r}: use an id, a dotted path or a callable")
        return env
    if env in ENVS:
        return _by_name(ENVS[env], env)
    if (creator := registered_with_tune(ENV_CREATOR, env)) is not None:
        return creator
    task = find_task(env)
    return _by_name(env if task is None else task.source, env)


def registered_with_tune(kind: str, name: str) -> Any:
    """Return what was registered with Ray Tune by this name, or ``None``.

    Args:
        kind: ``ENV_CREATOR`` or ``TRAINABLE_CLASS`` of :mod:`ray.tune.registry`.
        name: a name; Tune's keys are ASCII, and a running ray fails on others.
    """
    return _global_registry.get(kind, name) if name.isascii() and _global_registry.contains(kind, name) else None


def env_name(env: Any) -> str:
    """Return the name of an environment for messages."""
    return repr(env) if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)


def missing_package(env: str, error: ImportError) -> InputError:
    """Return the error for an environment that needs a package which is not installed, with the command."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return InputError(f"environment {env!r}: {one_line(error)[:200]}")
    package, path = error.name.partition(".")[0], env.replace(":", ".").replace("/", ".")
    command = next((c for start, c in INSTALL.items() if path.startswith(start)), INSTALL.get(package))
    if command is None and path.partition(".")[0] == package:
        return InputError(
            f"environment {env!r}: no module {package!r}; check the name, pip install {package} if it is a package, "
            f"or run where {package}.py is"
        )
    return InputError(f"environment {env!r} needs the package {package!r}: pip install {command or package}")


def _by_name(name: str, asked: str) -> Callable[..., Any]:
    """Return the factory of a name; ``asked`` is what the user wrote."""
    if name in gym.registry:
        return _GymnasiumId(name)
    for kind, registry in (("parallel", parallel_registry), ("aec", aec_registry)):
        if name in registry:
            return _PettingZooId(name, kind)
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        module = _import(module_name, asked)
        if attribute.startswith("Foraging-grid") and attribute not in gym.registry:
            module.register_grid_envs()  # thousands of ids, several seconds
        if attribute in gym.registry:
            return _GymnasiumId(name)
        found = _member(module, attribute, asked)
        if found is None:
            near = gym.registry if "-" in attribute else _public(module)
            raise _unknown(asked, [f"{module_name}:{n}" for n in near])
        return _maker(found, asked)
    if "." not in name:
        raise _unknown(asked, _known_names())
    return _dotted(name, asked)


def _dotted(name: str, asked: str) -> Callable[..., Any]:
    """Return the factory at a dotted path, which may be a module."""
    parent, _, last = name.rpartition(".")
    module = _import(parent, asked)
    found = _member(module, last, asked)
    if found is None and last in _submodules(module):
        found = _import(name, asked)
    if found is None:
        raise _unknown(asked, [f"{parent}.{n}" for n in (*_public(module), *_submodules(module))])
    return _maker(found, asked)


def _member(module: ModuleType, name: str, asked: str) -> Any:
    """Return what a module calls ``name``; ``None`` if it has no such name."""
    try:
        found = getattr(module, name, None)
    except ImportError as error:  # a module that imports its members on first use
        raise missing_package(asked, error) from error
    return None if isinstance(found, DeprecatedModule) else found  # an older version, which PettingZoo has dropped


def _import(module: str, asked: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        parent, _, _ = (error.name or "").rpartition(".")
        if parent and module.startswith(error.name or ""):
            raise _unknown(asked, [f"{parent}.{n}" for n in _submodules(importlib.import_module(parent))]) from None
        if not parent and "/" in asked:  # an id, not a path
            raise _unknown(asked, _known_names()) from None
        raise missing_package(asked, error) from error
    except ImportError as error:
        raise missing_package(asked, error) from error
    except ValueError:  # not the name of a module
        raise _unknown(asked, _known_names()) from None
    except Exception as error:  # an error in the user's module
        raise InputError(
            f"environment {asked!r}: importing {module} raised {type(error).__name__}: {one_line(error)[:150]}"
        ) from error


def _maker(found: Any, asked: str) -> Callable[..., Any]:
    """Return what builds the environment: the object itself, or a function of a module."""
    if isinstance(found, ModuleType):
        name = next((n for n in MAKERS if callable(getattr(found, n, None))), None)
        if name is None:
            raise InputError(
                f"environment {asked!r}: the module has no parallel_env and no env; name its class or function: "
                f"{asked}.MyEnv"
            )
        return _ModuleEnv(asked, getattr(found, name))
    if not callable(found):
        raise InputError(f"environment {asked!r} is a {type(found).__name__}; use a class or a function")
    return found


@dataclass(frozen=True)
class _ModuleEnv:
    """Factory of a PettingZoo module; its functions all have the same name."""

    module: str
    function: Callable[..., Any]

    @property
    def __name__(self) -> str:
        return self.module

    def __call__(self, **options: Any) -> Any:
        return self.function(**options)


@dataclass(frozen=True)
class _GymnasiumId:
    """Factory of a Gymnasium id."""

    id: str

    @property
    def __name__(self) -> str:
        return self.id

    def __call__(self, **options: Any) -> gym.Env:
        return make_gymnasium(self.id, options)


@dataclass(frozen=True)
class _PettingZooId:
    """Factory of an id of PettingZoo's registries."""

    id: str
    kind: Any

    @property
    def __name__(self) -> str:
        return self.id

    def __call__(self, **options: Any) -> Any:
        return make_pettingzoo(self.kind, self.id, **options)


def _unknown(asked: str, names: Iterable[str]) -> InputError:
    near = difflib.get_close_matches(asked, list(names), n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown environment {asked!r}{hint} ({_HELP})")


def _known_names() -> list[str]:
    registered = getattr(_global_registry, "_to_flush", {})
    return [
        *ENVS,
        *TASKS,
        *(name for kind, name in registered if kind == ENV_CREATOR),
        *gym.registry,
        *parallel_registry,
        *aec_registry,
    ]


def _public(module: ModuleType) -> list[str]:
    return [n for n in vars(module) if not n.startswith("_")]


def _submodules(module: ModuleType) -> list[str]:
    return [m.name for m in pkgutil.iter_modules(getattr(module, "__path__", []))]
