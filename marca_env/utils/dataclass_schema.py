"""Conversion of plain data (as YAML and JSON hold it) to frozen dataclasses and back; strict about names and types."""

from __future__ import annotations

import collections.abc
import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from marca_env.utils.errors import InputError, shown, unknown_option

_LARGEST = sys.float_info.max
EXCLUDED = {"plain": False}
"""Metadata of a field that plain data leaves out: ``field(metadata=EXCLUDED)``."""
UNLESS_DEFAULT = {"plain": "unless default"}
"""Metadata of a field that plain data leaves out where it has its default, so that older files stay as they are."""


def to_plain(value: Any) -> Any:
    """Convert a dataclass to lists, dicts and scalars; :func:`from_plain` is the inverse."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        written = {f.name: getattr(value, f.name) for f in _plain_fields(type(value)) if not _is_omitted(f, value)}
        return {name: to_plain(part) for name, part in written.items()}
    if isinstance(value, Mapping):
        return {k: to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value


def from_plain(cls: type, data: Any, where: str) -> Any:
    """Build a dataclass from plain data.

    Raises:
        InputError: an unknown or missing field, or a value of another type; names the field and its place in ``where``.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: expected a mapping, got {shown(data)}")
    fields = {f.name: f for f in _plain_fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in data:
        if key not in fields:
            raise InputError(f"{where}: {unknown_option('field', key, fields)}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise InputError(f"{where}: field {name!r} is missing; add it")
    values = {name: _convert(hints[name], value, f"{where}.{name}") for name, value in data.items()}
    return cls(**values)


def _plain_fields(cls: type) -> list[dataclasses.Field]:
    return [f for f in dataclasses.fields(cls) if f.metadata != EXCLUDED]


def _is_omitted(field: dataclasses.Field, value: Any) -> bool:
    """Return whether plain data leaves out a field because it has its default."""
    return bool(field.metadata == UNLESS_DEFAULT and getattr(value, field.name) == field.default)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where}: expected a list, got {shown(value)}")
        return tuple(_convert(args[0], v, f"{where}[{k}]") for k, v in enumerate(value))
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _convert(_alternative(args, value), value, where)
    if hint is float:
        return _number(value, where)
    if hint is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise InputError(f"{where}: expected a whole number, got {shown(value)}")
    if hint is str and not isinstance(value, str):
        raise InputError(f"{where}: expected text, got {shown(value)}")
    if origin is collections.abc.Mapping:
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: expected a mapping, got {shown(value)}")
        return {k: _number(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, Mapping):
        raise InputError(f"{where}: expected a plain value, got {shown(value)}")
    if isinstance(value, list):
        return tuple(value)
    return value


def _alternative(hints: tuple[Any, ...], value: Any) -> Any:
    """Choose the type of a union: that of lists if the value is a list, else the first."""
    candidates = [h for h in hints if h is not type(None)]
    lists = [h for h in candidates if typing.get_origin(h) is tuple]
    return lists[0] if lists and isinstance(value, (list, tuple)) else candidates[0]


def _number(value: Any, where: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or abs(value) > _LARGEST or value != value:
        raise InputError(f"{where}: expected a finite number, got {shown(value)}")
    return float(value)
