"""The benchmark suite: one module per experiment, found by its name; ``marca bench run NAME`` runs it.

What an experiment is, is said in :mod:`benchmarks.suite.api`. Anything heavy (ray, torch) is imported inside the
functions, so that the list is quick to show.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from benchmarks import experiments
from marca_env.utils.errors import InputError, one_line, unknown_option

__all__ = ["chosen", "experiment", "load", "names", "summary"]
CONTRACT = ("cases", "measure", "tables")
ALL = "all"
"""Stands for every experiment."""
NOT_QUICK = ("tuning",)
"""Left out where all are run in their quick form, which is to show in minutes that everything works: searches."""


def names() -> tuple[str, ...]:
    """Every experiment of the suite, by name."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(experiments.__path__) if m.ispkg))


def chosen(given: Iterable[str], *, quick: bool = False) -> list[str]:
    """The experiments given and, after each, the parts of it that there are; each once. ``all`` are all of the suite.

    Raises:
        InputError: there is none of that name.
    """
    there = names()
    every = [name for name in there if not (quick and name in NOT_QUICK)]
    found: list[str] = []
    for name in (n for g in given for n in (every if g == ALL else [g])):
        found += [name, *(part for part in getattr(load(name), "PARTS", ()) if part in there)]
    return list(dict.fromkeys(found))


def experiment(name: str) -> ModuleType:
    """The module of an experiment: of the suite by its name, any other by its import path.

    Raises:
        InputError: there is none of that name; the message names the nearest one.
    """
    if name in names():
        return importlib.import_module(f"{experiments.__name__}.{name}.experiment")
    if "." not in name and importlib.util.find_spec(name) is None:
        raise InputError(f"{unknown_option('experiment', name, names())}; or the import path of a module of your own")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # found, and it needs something that is not there
        reason = one_line(error)
    except (ValueError, TypeError) as error:  # such as "..name" or "a..b"
        reason = one_line(error)
    raise InputError(
        f"experiment {name}: {reason}; modules are looked for in the current directory and in the environment"
    )


def load(name: str) -> Any:
    """An experiment as :mod:`benchmarks.suite.api` describes it.

    Raises:
        InputError: there is none of that name, or it lacks functions.
    """
    module = experiment(name)
    missing = [f for f in CONTRACT if not callable(getattr(module, f, None))]
    if missing:
        raise InputError(
            f"experiment {name}: {module.__name__} has no function {missing[0]}; see benchmarks/suite/api.py"
        )
    return module


def summary(name: str) -> str:
    """First line of the experiment's docstring."""
    return (experiment(name).__doc__ or "").strip().partition("\n")[0]
