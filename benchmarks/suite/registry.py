"""Registry of experiments: the packages of :mod:`benchmarks.experiments` by name, a user's modules by dotted path.

:mod:`benchmarks.suite.api` defines what a module must have. Listing the experiments imports none of them.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from marca_env.utils.errors import InputError, one_line, unknown_option

PACKAGE, FOLDER = "benchmarks.experiments", Path(__file__).parents[1] / "experiments"
REQUIRED_FUNCTIONS = ("cases", "measure", "tables")
ALL = "all"
"""Name that stands for every experiment."""
NOT_QUICK = ("tuning",)
"""Experiments that ``all`` leaves out in a quick run: searches have no form that takes minutes."""


def experiment_names() -> tuple[str, ...]:
    """Return the names of the suite's experiments."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(FOLDER)]) if module.ispkg))


def experiment_summary(name: str) -> str:
    """Return the first line of the docstring of one of the suite's experiments, without importing it."""
    source = (FOLDER / name / "experiment.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def expand_names(names: Iterable[str], *, quick: bool = False) -> list[str]:
    """Return the experiments named and, after each, its parts; ``all`` stands for every experiment of the suite.

    Raises:
        InputError: unknown experiment.
    """
    suite = experiment_names()
    every = [name for name in suite if not (quick and name in NOT_QUICK)]
    expanded: list[str] = []
    for name in (name for given in names for name in (every if given == ALL else [given])):
        parts = getattr(load_experiment(name), "PARTS", ())
        expanded += [name, *(part for part in parts if part in suite)]
    return list(dict.fromkeys(expanded))


def import_experiment(name: str) -> ModuleType:
    """Import the module of an experiment: of the suite by its name, any other by its dotted path.

    Raises:
        InputError: unknown experiment; the message names the nearest one.
    """
    if name in experiment_names():
        return importlib.import_module(f"{PACKAGE}.{name}.experiment")
    if "." not in name and importlib.util.find_spec(name) is None:
        message = unknown_option("experiment", name, experiment_names())
        raise InputError(f"{message}; or give the import path of a module of yours")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # the module exists, and something that it imports is missing
        reason = one_line(error)
    except (ValueError, TypeError) as error:  # such as "..name" or "a..b"
        reason = one_line(error)
    raise InputError(
        f"experiment {name}: {reason}; modules are searched in the current folder and in the Python environment"
    )


def load_experiment(name: str) -> Any:
    """Import an experiment and check that it has the functions of :mod:`benchmarks.suite.api`.

    Raises:
        InputError: unknown experiment, or a function is missing.
    """
    module = import_experiment(name)
    missing = [function for function in REQUIRED_FUNCTIONS if not callable(getattr(module, function, None))]
    if missing:
        raise InputError(
            f"experiment {name}: {module.__name__} has no function {missing[0]}; see benchmarks/suite/api.py"
        )
    return module
