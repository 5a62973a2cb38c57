"""Tables of plain text cells, made from tables of rich, for Markdown and HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 200
"""Columns for a cell that is neither text nor markup."""


@dataclass(frozen=True)
class FlatTable:
    """Table whose cells are text."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...] = ()
    """Which columns are right-aligned (default: all but the first)."""
    note: str = ""

    def __post_init__(self) -> None:
        if not self.right:
            object.__setattr__(self, "right", (False, *(True for _ in self.headings[1:])))

    @classmethod
    def from_rich(cls, table: Table) -> FlatTable:
        """Convert a table of rich: markup is resolved, a footer becomes the last row."""
        columns = table.columns
        rows = [tuple(map(plain_text, cells)) for cells in zip(*(column.cells for column in columns), strict=True)]
        if table.show_footer:
            rows.append(tuple(plain_text(column.footer) for column in columns))
        return cls(
            plain_text(table.title or ""),
            tuple(plain_text(column.header) for column in columns) if table.show_header else ("",) * len(columns),
            tuple(rows),
            tuple(column.justify == "right" for column in columns),
            plain_text(table.caption or ""),
        )

    @property
    def markdown(self) -> str:
        """The table in GitHub's Markdown, without title and note."""
        rule = ["---:" if right else "---" for right in self.right]
        lines = [[escape_markdown(cell) for cell in row] for row in (self.headings, *self.rows)]
        return "\n".join(_line(row) for row in (lines[0], rule, *lines[1:]))


def plain_text(cell: Any) -> str:
    """Return the text that rich shows in a cell."""
    if isinstance(cell, str):
        return Text.from_markup(cell).plain
    if isinstance(cell, Text):
        return cell.plain
    console = Console(width=WIDTH, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(cell)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escape_markdown(text: str) -> str:
    """Escape Markdown and HTML, and put the text on one line."""
    return re.sub(r"([\\|*`<]|(?<=\])\()", r"\\\1", text).replace("\n", "<br>")
