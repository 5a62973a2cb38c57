"""``marca bench``: the group of the benchmark suite's commands; alone, it lists the experiments."""

from __future__ import annotations

import argparse

from benchmarks.cli.commands.bench_list import run

__all__ = ["add_arguments", "run"]

EPILOG = """\
first steps:
  marca bench list                       which experiments there are
  marca bench run games --quick          a small run of one of them
  marca bench run games                  measure it; an interrupted run continues with the same command
  marca bench reference ranking          add our rows, so that only your own method needs measuring
  marca bench run ranking --methods my_module.MyQMIX
  marca bench report                     tables and figures of everything that is recorded"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the help of the group."""
    parser.usage = "marca bench COMMAND ..."
    parser.epilog = EPILOG
