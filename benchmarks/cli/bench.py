"""``marca bench``: what the benchmark suite can do, and which experiments it has; ``marca bench run`` runs them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.suite import registry
from marca_env.utils.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

HELP = "run experiments of the benchmark suite"
EPILOG = """\
marca bench list               which experiments there are
marca bench run ID [ID ...]    run them; each of the four has its own --help
marca bench reference          records of the README's tables, so that only your method needs measuring
marca bench report             tables and figures of what was measured, as Markdown and HTML"""

WIDTH = 160
"""Of tables that no terminal shows, columns."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Show the list; an experiment's name alone is no command."""

    if args.rest:
        raise InputError(f"marca bench runs nothing by itself: marca bench run {' '.join(args.rest)}")
    show_list()
    return 0


def show_list() -> None:
    """Every experiment and its summary."""

    table = Table("experiment", "what it measures")
    for name in registry.names():
        table.add_row(name, registry.summary(name))
    console().print(table)


def console() -> Console:
    """As wide as the terminal, and of a fixed width elsewhere."""

    return Console(width=None if Console().is_terminal else WIDTH)
