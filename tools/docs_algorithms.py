"""Tables of options and settings, generated from the dataclasses that define them."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import textwrap
from typing import Any

from agents.algorithms.options import GROUPS
from agents.algorithms.presets import PRESETS, SWITCHES


def field_docs(cls: type) -> dict[str, str]:
    """Return field name → the string that stands under the field in the source of a dataclass or of its bases."""
    docs: dict[str, str] = {}
    for base in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                assert isinstance(field.target, ast.Name)
                assert isinstance(below.value, ast.Constant)
                docs[field.target.id] = " ".join(str(below.value.value).split())
    return docs


def _cell(text: object) -> str:
    return str(text).replace("``", "`").replace("|", "\\|").replace(":class:", "").replace(":mod:", "")


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else "required"


def settings_table(path: str) -> str:
    """Return a Markdown table of the fields of the dataclass at a dotted path: name, type, default, meaning."""
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    docs = field_docs(cls)
    rows = [
        f"| `{f.name}` | `{_cell(f.type)}` | `{_cell(_default(f))}` | {_cell(docs.get(f.name, ''))} |"
        for f in dataclasses.fields(cls)
    ]
    return "\n".join(["| setting | type | default | meaning |", "|---|---|---|---|", *rows])


def options_table(preset: str) -> str:
    """Return a Markdown table of the options of a preset: the ones that differ from the other algorithms' first."""
    options = PRESETS[preset].options
    rows = []
    for cls in GROUPS.values():
        docs = field_docs(cls)
        for field in dataclasses.fields(cls):
            value, usual = options[field.name], _default(field)
            mark = "**" if value != usual else ""
            rows.append(
                (not mark, f"| `{field.name}` | {mark}`{_cell(value)}`{mark} | {_cell(docs.get(field.name, ''))} |")
            )
    table = [row for _, row in sorted(rows, key=lambda row: row[0])]
    return "\n".join(["| option | value in this preset | meaning |", "|---|---|---|", *table])


def switches_table(preset: str) -> str:
    """Return a Markdown table of the ablation switches of a preset."""
    rows = [f"| `{name}` | `{option}` | `{on}` | `{off}` |" for name, (option, on, off) in SWITCHES[preset].items()]
    return "\n".join(["| switch | option | on | off |", "|---|---|---|---|", *rows])
