"""Methods by name: a built-in one, or a user's class by its dotted path.

An algorithm comes with the options that it sets; an object (a policy or a balancer) is built and its calls are guarded.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marca_env.utils.errors import InputError, one_line, unknown_option
from marca_env.utils.importing import import_object

RUN_OPTIONS = ("train_batch_size_per_learner", "updates_per_iteration", "split")
"""Options that are the same for all methods of an experiment."""


def check_method_name(method: str, experiment: str, valid: Iterable[str], described: str) -> None:
    """Check that a name without dots is a known method.

    Args:
        method: the name, or a dotted path.
        experiment: what takes the method, such as ``ranking``.
        valid: names of methods.
        described: what a dotted path may name, such as ``an algorithm``.

    Raises:
        InputError: unknown name; the message names the nearest one.
    """
    valid = tuple(valid)
    if "." not in method and method not in valid:
        message = unknown_option(f"method of the {experiment}", method, valid)
        raise InputError(f"{message}; or give the dotted path of {described} of yours, such as my_module.MyQMIX")


def user_options(method: str) -> dict[str, Any]:
    """Return the options that a user's algorithm sets, as plain data with classes by their dotted paths.

    These are the options in its ``defaults`` and those that differ from its preset's, without :data:`RUN_OPTIONS`.
    Empty for a name without dots.

    Raises:
        InputError: see :func:`user_config`.
    """
    if "." not in method:
        return {}
    from agents.rllib.core.algorithms import CONFIGS
    from agents.rllib.core.team_config import RLLIB_OPTIONS, TeamConfig

    config = user_config(method)
    if not isinstance(config, TeamConfig):
        return {}
    preset = CONFIGS[config.preset_name]()
    values = {name: _plain(getattr(config, name)) for name in (*config.option_names(), *RLLIB_OPTIONS)}
    return {
        name: value
        for name, value in values.items()
        if name not in RUN_OPTIONS and (name in config.defaults or value != _plain(getattr(preset, name)))
    }


def user_config(method: str) -> Any:
    """Build a new configuration of a user's algorithm.

    Args:
        method: its dotted path.

    Raises:
        InputError: it cannot be built.
    """
    from agents.rllib.training.any_algorithm import algorithm_config

    try:
        return algorithm_config(method)
    except InputError:
        raise
    except Exception as error:  # a fault in the user's class
        raise InputError(f"algorithm {method}: {type(error).__name__}: {one_line(error)}") from error


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_dotted_path))


def _dotted_path(value: Any) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


# -- objects of a user ---------------------------------------------------------------------------------------------
def is_user_object(method: Any) -> bool:
    """Return whether a method is a user's: a dotted path, a class or an object."""
    return not isinstance(method, str) or "." in method


def user_object_name(method: Any) -> str:
    """Return the name of a method in tables: the name or dotted path itself, else that of its class."""
    if isinstance(method, str):
        return method
    name = getattr(method, "name", None)
    return name if name and isinstance(name, str) else getattr(method, "__name__", type(method).__name__)


def find_user_object(method: Any, kind: str, needs: Sequence[str]) -> Any:
    """Return a user's class or object, checked for the methods that it needs; nothing is built.

    Args:
        method: its dotted path, the class, a function that builds the object, or the object.
        kind: what it is, such as ``policy``, for messages.
        needs: methods that it must have, with their arguments, such as ``update(observation)``.

    Raises:
        InputError: it cannot be imported, or lacks a method.
    """
    found = import_object(method, kind) if isinstance(method, str) else method
    if inspect.isroutine(found):  # a factory; what it returns is checked when it is built
        return found
    missing = [call for call in needs if not callable(getattr(found, call.partition("(")[0], None))]
    if missing:
        raise InputError(f"{kind} {user_object_name(method)} has no method {missing[0]}; add it")
    return found


def build_user_object(method: Any, kind: str, needs: Sequence[str], calibration: Any) -> Any:
    """Return a user's object; a class or function that requires an argument gets the calibration.

    Raises:
        InputError: see :func:`find_user_object`; or building it failed.
    """
    found, name = find_user_object(method, kind, needs), user_object_name(method)
    if not isinstance(found, type) and not inspect.isroutine(found):
        return found
    with user_faults(f"{kind} {name}", "when it was built"):
        built = found(calibration) if _requires_argument(found) else found()
    return find_user_object(built, kind, needs)


def source_digest(method: str) -> str:
    """Return a hash of the module of a user's object, so that a changed one is measured again.

    Raises:
        InputError: it cannot be imported.
    """
    found = import_object(method, "method")
    module = inspect.getmodule(found)
    try:
        text = inspect.getsource(module if module is not None else found)
    except (OSError, TypeError):  # no source file
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _requires_argument(factory: Any) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a class of C
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return any(p.default is p.empty for p in positional)


@contextmanager
def user_faults(what: str, where: str) -> Iterator[None]:
    """Report an exception of a user's code as one line that names the class, the step and the line of the code.

    Args:
        what: the object, such as ``policy my_module.Mine``.
        where: the step, such as ``minute 3``.

    Raises:
        InputError: the exception, with its cause.
    """
    try:
        yield
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        place = f"{Path(last.filename).name}, line {last.lineno}"
        raise InputError(f"{what}, {where}: {kind}{one_line(error)} ({place}); --debug shows the traceback") from error
