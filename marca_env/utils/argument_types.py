"""Arguments of public functions and fields of dataclasses, checked against their annotations when they are given.

A wrong type is one line that names the function, the argument, the value and what to pass, instead of an error from
somewhere inside. Ranges are checked where they are known, with :mod:`marca_env.utils.validation`.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import importlib
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from marca_env.utils.errors import InputError, UnknownArgumentError, shown, unknown_option
from marca_env.utils.validation import SEED_LIMIT

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_INT_LIMIT = 2**63
_LONGEST_PATH, _LONGEST_NAME = 4096, 255
_SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping)


def checked_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to check its arguments against its annotations.

    Unknown and missing arguments are also ``TypeError``, as Python's own.

    Raises:
        InputError: raised by the decorated function for a wrong argument.
    """
    signature = inspect.signature(function)
    name = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def checked(*args: P.args, **keywords: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **keywords)
        except TypeError as error:
            unknown = [key for key in keywords if key not in signature.parameters]
            hint = unknown_option("argument", unknown[0], _names(signature)) if unknown else str(error)
            raise UnknownArgumentError(f"{name}: {hint}") from None
        hints = _hints(function)
        for argument, value in bound.arguments.items():
            kind = signature.parameters[argument].kind
            if argument in hints and kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                default = signature.parameters[argument].default
                if value is not default:
                    check_type(f"{name}: {argument}", value, hints[argument])
        return function(*args, **keywords)

    return checked


def checked_fields(cls: C) -> C:
    """Decorate a dataclass, below ``@dataclass``, to check its fields against their annotations when it is built."""
    following: Callable[[Any], None] | None = cls.__dict__.get("__post_init__")

    def __post_init__(self: Any) -> None:  # noqa: N807 - it becomes the class's own
        hints, name = _hints(cls), type(self).__name__
        place = "" if name.endswith("Options") else f"{name}: "  # options are the arguments of a function
        for field in dataclasses.fields(self):
            if field.name in hints and field.init:
                value = getattr(self, field.name)
                if value is not field.default:
                    check_type(f"{place}{field.name}", value, hints[field.name])
        inherited = getattr(super(cls, self), "__post_init__", None)
        if following is not None:
            following(self)
        elif inherited is not None:
            inherited()

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    return cls


def check_type(what: str, value: Any, hint: Any) -> None:
    """Check a value against an annotation.

    Args:
        what: function and argument, for the message.
        value: the value.
        hint: annotation; one that says nothing about plain values, such as a protocol, accepts everything.

    Raises:
        InputError: another type; an integer that no computation takes; not a number (nan); a path that no system takes.
    """
    if not _fits(what.rpartition(" ")[2], value, hint):
        raise InputError(f"{what} is {shown(value)}; pass {describe_type(hint)}")
    if isinstance(value, (str, os.PathLike)) and Path in typing.get_args(hint):
        checked_path(value, what)


def checked_path(path: Any, what: str) -> Path:
    """Return a path.

    Raises:
        InputError: something else, or one that no system takes.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"{what}: {shown(path)} is not a path; pass text or a Path")
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text or len(text) >= _LONGEST_PATH:
        raise InputError(f"{what}: {shown(text)} is not a path")
    if any(len(part) > _LONGEST_NAME for part in Path(text).parts):
        raise InputError(f"{what}: {shown(text)} has a name of more than {_LONGEST_NAME} characters")
    return Path(text)


@functools.cache
def _hints(owner: Any) -> dict[str, Any]:
    """Return the annotations of a function or a class by name, without those that cannot be resolved.

    pandas is often imported for type checkers only; it is known here.
    """
    try:
        return typing.get_type_hints(owner, localns={"pd": importlib.import_module("pandas")})
    except (NameError, TypeError):  # another name that is imported for type checkers only
        pass
    hints = {}
    namespace = {"pd": importlib.import_module("pandas"), **getattr(owner, "__globals__", {})}
    for name, annotation in getattr(owner, "__annotations__", {}).items():
        with contextlib.suppress(Exception):  # one at a time
            hints[name] = eval(annotation, namespace) if isinstance(annotation, str) else annotation
    return hints


def _names(signature: inspect.Signature) -> list[str]:
    return [name for name in signature.parameters if name not in ("self", "cls")]


def _fits(name: str, value: Any, hint: Any) -> bool:
    """Return whether a value fits an annotation; ``name`` is the argument's."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(name, value, alternative) for alternative in args)
    if origin is typing.Literal:
        return isinstance(value, str)  # the function itself names the nearest valid one
    if hint is None or hint is type(None):
        return value is None
    if origin in _SEQUENCES or hint in _SEQUENCES:
        return _fits_sequence(name, value, origin or hint, args)
    if origin in _MAPPINGS or hint in _MAPPINGS:
        return isinstance(value, Mapping) and (
            len(args) != 2 or all(_fits(name, k, args[0]) and _fits(name, v, args[1]) for k, v in value.items())
        )
    if origin is collections.abc.Callable or hint is Callable:
        return callable(value)
    return _fits_plain(name, value, hint)


def _fits_sequence(name: str, value: Any, hint: Any, args: tuple[Any, ...]) -> bool:
    if isinstance(value, (str, bytes, Mapping)):
        return False
    if hint is collections.abc.Iterable and not isinstance(value, Sequence):
        return isinstance(value, collections.abc.Iterable)  # perhaps a generator, which can be read only once
    if isinstance(value, np.ndarray) and (hint is tuple or value.ndim == 0 or value.dtype.kind not in "biufUS"):
        return False
    if not isinstance(value, Sequence):
        return False
    elements = [a for a in args if a is not Ellipsis]
    return len(elements) != 1 or all(_fits(name, element, elements[0]) for element in value)


def _fits_plain(name: str, value: Any, hint: Any) -> bool:
    is_bool = isinstance(value, (bool, np.bool_))
    if hint is bool:
        return is_bool
    if hint is int:
        limit = SEED_LIMIT if "seed" in name else _INT_LIMIT
        return bool(isinstance(value, (int, np.integer)) and not is_bool and -_INT_LIMIT <= value < limit)
    if hint is float:
        number = isinstance(value, (int, float, np.integer, np.floating)) and not is_bool
        return bool(number and (abs(value) < 2**1023 if isinstance(value, int) else not math.isnan(value)))
    if hint is str:
        return isinstance(value, str)
    if hint in (Path, os.PathLike):
        text = os.fspath(value) if isinstance(value, os.PathLike) else ""
        return isinstance(value, os.PathLike) and "\0" not in str(text) and len(str(text)) < _LONGEST_PATH
    if hint is np.ndarray:
        return _is_numeric(value)
    if hint is Any or not isinstance(hint, type) or getattr(hint, "_is_protocol", False):
        return True
    return isinstance(value, hint)


def _is_numeric(value: Any) -> bool:
    if value is None or isinstance(value, (str, bytes, Mapping, set)):
        return False
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except Exception:  # rows of different lengths, or an object that refuses
        return False


def describe_type(hint: Any) -> str:
    """Return what to pass for an annotation, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(describe_type(a) for a in args))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, args))
    if hint is None or hint is type(None):
        return "None"
    if origin in _SEQUENCES or hint in _SEQUENCES:
        of = [a for a in args if a is not Ellipsis]
        return f"a list of {_PLURAL.get(of[0], 'values')}" if len(of) == 1 else "a list"
    if origin in _MAPPINGS or hint in _MAPPINGS:
        return "a mapping"
    if origin is collections.abc.Callable or hint is Callable:
        return "a function"
    plain = {bool: "True or False", int: "an integer", float: "a number", str: "text", Path: "a path"}
    if hint in plain:
        return plain[hint]
    return "an array of numbers" if hint is np.ndarray else f"a {getattr(hint, '__name__', hint)}"


_PLURAL: dict[Any, str] = {int: "integers", float: "numbers", str: "texts"}
