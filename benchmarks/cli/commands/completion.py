"""``marca completion``: a script that lets a shell complete commands, options and files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import shtab

from benchmarks.cli.parsers import COMMANDS, Parser, build_parsers

DESCRIPTION = """\
Print a script that completes commands, options and file names.

  bash:  marca completion bash > ~/.local/share/bash-completion/completions/marca
  zsh:   marca completion zsh > ~/.zfunc/_marca        # a folder of your $fpath
  tcsh:  marca completion tcsh > ~/.marca.csh          # and source it in ~/.tcshrc"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = DESCRIPTION
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="shell that reads the script")


def run(args: argparse.Namespace) -> None:
    """Print the script."""
    parsers = build_parsers(load=COMMANDS)
    for parser in parsers.values():
        _complete_paths(parser)
    print(shtab.complete(parsers[""], args.shell))


def _complete_paths(parser: Parser) -> None:
    """Let arguments that are paths complete files, or folders where their placeholder is DIR."""
    for action in parser._actions:
        if action.type is Path:
            completed: Any = action
            completed.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
