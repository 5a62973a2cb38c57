"""``marca bench list``: the experiments of the benchmark suite."""

from __future__ import annotations

import argparse

from rich.table import Table

from benchmarks.suite.registry import experiment_names, experiment_summary
from marca_env.utils.console import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no options: the command has none."""


def run(args: argparse.Namespace) -> None:
    """Print every experiment and its summary."""
    table = Table("experiment", "what it measures")
    for name in experiment_names():
        table.add_row(name, experiment_summary(name))
    make_console().print(table)
