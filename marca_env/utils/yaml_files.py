"""YAML and JSON that people write by hand: read strictly, every fault on one line with its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from marca_env.utils.errors import InputError, one_line


class _Strict(yaml.SafeLoader):
    """Refuses a key that is there twice, and reads ``1e-3`` as the number that it is."""


def _mapping(loader: _Strict, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        try:
            if key in seen:
                raise InputError(f"line {line}: key {key!r} is there already, on line {seen[key]}; keep one of them")
        except TypeError:
            raise InputError(f"line {line}: a key must be a word or a number, not {key!r}") from None
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


def _number(loader: _Strict, node: yaml.ScalarNode) -> Any:
    text = str(loader.construct_scalar(node))
    try:
        return float(text)
    except ValueError:
        return text


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Strict.add_implicit_resolver("!exponent", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))
_Strict.add_constructor("!exponent", _number)


def read_mapping(source: Path | str, *, where: str | None = None) -> dict[str, Any]:
    """An object of YAML or JSON, from a file or from ``where``'s text.

    Raises:
        InputError: no such file, not YAML, a key given twice, or no object; the message names file and line.
    """
    if isinstance(source, Path):
        where = str(source)
        if not source.is_file():
            raise InputError(f"{source}: no such file")
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{source}: cannot be read ({one_line(error)})") from None
    else:
        text = source
    try:
        data = yaml.load(text, Loader=_Strict)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where}: neither JSON nor YAML ({one_line(error)})") from None
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object of options, got {type(data).__name__}")
    for key in data:
        if not isinstance(key, str):
            raise InputError(f"{where}: key {key!r} is no word; put it in quotes")
    return data
