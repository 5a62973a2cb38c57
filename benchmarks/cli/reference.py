"""Markdown reference of the command line, generated from the parsers: ``python -m benchmarks.cli.reference FILE``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cli.parsers import COMMANDS, Parser, build_parsers


def cli_reference() -> str:
    """Return a page with a section for every command: what it does, its usage and its options."""
    parsers = build_parsers(load=COMMANDS)
    lines = ["# Command line", "", parsers[""].description or "", "", "| command | |", "|---|---|"]
    for name, summary in COMMANDS.items():
        lines.append(f"| [`marca {name}`](#marca-{name.replace(' ', '-')}) | {summary} |")
    for name in COMMANDS:
        lines += _section(parsers[name])
    return "\n".join(lines) + "\n"


def _section(parser: Parser) -> Iterator[str]:
    yield from ("", f"## {parser.prog}", *_text(parser.description))
    if any(action.option_strings[:1] != ["-h"] for action in parser._actions):
        usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
        yield from ("", "```text", usage, "```")
    for group in parser._action_groups:
        rows = [row for action in group._group_actions if (row := _row(parser, action))]
        if rows:
            yield from ("", f"| {group.title} | |", "|---|---|", *rows)
    if parser.epilog:
        yield from ("", "```text", parser.epilog, "```")


def _text(description: str | None) -> Iterator[str]:
    """Yield a description; its indented lines become code blocks."""
    for block in (description or "").split("\n\n"):
        yield from ("", "```text", block, "```") if block.startswith("  ") else ("", block)


def _row(parser: Parser, action: argparse.Action) -> str | None:
    if action.help is argparse.SUPPRESS or isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
        return None
    formatter = parser._get_formatter()
    name = formatter._format_action_invocation(action).replace("|", "\\|")
    return f"| `{name}` | {_cell(formatter._expand_help(action) if action.help else '')} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(cli_reference(), encoding="utf-8")
