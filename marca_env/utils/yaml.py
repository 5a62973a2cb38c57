"""Strict reader of YAML and JSON that people write by hand.

It refuses a key that appears twice, reads ``1e-3`` as a number (as JSON and YAML 1.2 do), and reports every fault on
one line with its file and place.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from marca_env.utils.errors import InputError, one_line


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses repeated keys and knows numbers without a decimal point before their exponent."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; a key that appears twice is an error."""
        node = super().compose_mapping_node(anchor)
        first_lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in first_lines:
                problem = f"key {key.value!r} appears twice, first on line {first_lines[name]}"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            first_lines[name] = line
        return node


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
# Dates stay text, as in JSON: no setting is one, and 2020-13-45 would not be a date but an error of Python's.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _StrictLoader.yaml_implicit_resolvers.items()
}


def read_mapping(path: Path, what: str = "") -> dict[str, Any]:
    """Read a mapping from a YAML or JSON file.

    Args:
        path: the file, in UTF-8.
        what: kind of file, such as "scenario", for messages.

    Raises:
        InputError: the file is missing, cannot be read, or holds no mapping; see :func:`parse_mapping`.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such {what + ' ' if what else ''}file; check the path")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({one_line(error)}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); check its permissions") from None
    return parse_mapping(text, str(path))


def parse_mapping(text: str, where: str) -> dict[str, Any]:
    """Parse YAML or JSON text that holds a mapping with text keys.

    Args:
        text: the text.
        where: its source, for messages.

    Raises:
        InputError: not YAML, a key that appears twice or is not text, or no mapping.
    """
    data = parse_yaml(text, where)
    if not isinstance(data, dict):
        kind = "nothing" if data is None else type(data).__name__
        raise InputError(f"{where}: expected a mapping, got {kind}; write 'name: value' lines")
    for key in data:
        if not isinstance(key, str):
            raise InputError(f"{where}: key {key!r} is not text; put it in quotes")
    return data


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML or JSON text of any kind: a mapping, a list or a single value.

    Raises:
        InputError: not YAML, or a key that appears twice; the message names ``where``, line and column.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{where}: not valid YAML or JSON: {_place(error)}; correct the text there") from None


def _place(error: yaml.YAMLError | ValueError) -> str:
    """Describe where and why parsing stopped."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return one_line(error)
