"""Strict reader of YAML and JSON that people write by hand.

It refuses a key that appears twice, knows the values of JSON and of YAML 1.2's core schema alone, and reports every
fault on one line with its file and place: ``1e-3`` is a number, and ``on``, ``no``, ``12:30`` and dates are text, which
they are not in YAML 1.1. A file that was made to exhaust time or memory is refused at once: one that is very
long or nested deeply, one whose aliases stand for far more than it holds, and numbers of thousands of digits.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from marca_env.utils.errors import MOST_OF_A_VALUE, InputError, one_line

MOST_CHARACTERS = 1_000_000
"""Longest text that is read; hand-written files have thousands of characters."""
MOST_DEPTH = 64
"""Deepest nesting."""
MOST_VALUES = 50_000
"""Most values, each alias counted with everything that it stands for."""
_MOST_DIGITS = 200  # characters of a scalar that is not text; a YAML integer such as 1:59:59:… takes quadratic time


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses repeated keys and every tag but those of JSON's values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._sizes: dict[int, int] = {}  # complete list or mapping → values in it, with aliases written out

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node; too many, too deeply nested and endless ones are an error."""
        mark, is_alias = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        self._count += 1
        self._refuse(self._depth >= MOST_DEPTH, f"more than {MOST_DEPTH} levels of nesting", mark)
        self._refuse(self._count > MOST_VALUES, f"more than {MOST_VALUES:,} values", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        assert node is not None
        if isinstance(node, yaml.ScalarNode):
            is_text = len(node.value) <= _MOST_DIGITS or node.tag == "tag:yaml.org,2002:str"
            kind = node.tag.rpartition(":")[2]
            self._refuse(not is_text, f"{kind} of {len(node.value)} characters; put text in quotes", mark)
            return node
        if id(node) not in self._sizes:
            self._refuse(is_alias, "contains itself", mark)
            pairs = isinstance(node, yaml.MappingNode)
            inner = [part for pair in node.value for part in pair] if pairs else node.value
            self._sizes[id(node)] = 1 + sum(self._sizes.get(id(part), 1) for part in inner)
        self._refuse(self._sizes[id(node)] > MOST_VALUES, f"stands for more than {MOST_VALUES:,} values", mark)
        return node

    @staticmethod
    def _refuse(fault: bool, problem: str, mark: Any) -> None:
        if fault:
            raise yaml.composer.ComposerError(None, None, problem, mark)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; a key that appears twice is an error."""
        node = super().compose_mapping_node(anchor)
        first_lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in first_lines:
                problem = f"key {key.value[:MOST_OF_A_VALUE]!r} appears twice, first on line {first_lines[name]}"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            first_lines[name] = line
        return node


_FORMS = {
    "null": (r"~|null|Null|NULL|", [*"~nN", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": (r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+", [*"-+0123456789"]),
    "float": (
        r"[-+]?((\.[0-9]+|[0-9][0-9_]*\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
    "merge": (r"<<", ["<"]),
}
"""Kind of an unquoted value → its form, and the characters with which it can begin."""
_StrictLoader.yaml_implicit_resolvers = {}
for _kind, (_form, _first) in _FORMS.items():
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_form})$"), _first)
_KINDS = (*_FORMS, "str", "seq", "map")
_StrictLoader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _KINDS
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
        if path.stat().st_size > 4 * MOST_CHARACTERS:  # at most four bytes a character
            raise InputError(f"{path}: {_too_long(path.stat().st_size, 'bytes')}")
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
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"{where}: {_too_long(len(text), 'characters')}")
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{where}: not valid YAML or JSON: {_place(error)}; correct the text there") from None
    except (AttributeError, KeyError, IndexError, TypeError, OverflowError, RecursionError):  # such as !!bool maybe
        raise InputError(
            f"{where}: not valid YAML or JSON: a value does not fit its tag (such as !!int or !!timestamp); leave the "
            "tags out"
        ) from None


def _too_long(length: int, unit: str) -> str:
    return f"{length:,} {unit}; it cannot be a file that is written by hand, which has at most {MOST_CHARACTERS:,}"


def _place(error: yaml.YAMLError | ValueError) -> str:
    """Describe where and why parsing stopped."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {one_line(ValueError(error.problem), 300)}"
    return one_line(error, 300)
