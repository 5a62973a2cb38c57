"""One place that makes rich consoles: as wide as the terminal, and of one fixed width in pipes and files."""

from __future__ import annotations

from rich.console import Console

WIDTH = 160
"""Columns where no terminal tells its width."""


def make_console(*, stderr: bool = False) -> Console:
    """Return a console for tables and progress.

    Args:
        stderr: write to the standard error stream.
    """
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=WIDTH)
