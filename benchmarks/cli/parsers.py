"""Parsers of the ``marca`` command: one for each command, with its options on request."""

from __future__ import annotations

import argparse
import difflib
import importlib
import itertools
from collections.abc import Collection, Sequence
from importlib import metadata
from typing import NoReturn

from marca_env.utils.errors import InputError, unknown_option

COMMANDS = {
    "testbench": "measure what each stage of a running service costs",
    "fit": "fit the cost and revenue models of a scenario to logs",
    "train": "train an algorithm in an environment or on a request log",
    "train file": "train the experiments of a YAML file",
    "evaluate": "play greedy episodes with a trained policy",
    "decide": "decide the requests of Parquet files of any size with a trained policy",
    "score": "report how well predicted values rank and fit what requests earned",
    "allocate": "give the actions of your files to requests within quotas",
    "simulate": "replay a day of traffic under several allocation policies",
    "balance": "compare controllers of the price of computation on a day of traffic",
    "control": "set the prices of live traffic from its telemetry, beside decision servers",
    "serve": "decide for live traffic over HTTP, with prices, modes, guard rails and metrics",
    "traces": "list public traces of traffic, or check how a file of yours is read",
    "headroom": "show how much allocation can gain over the best fixed action",
    "bench": "run the experiments of the benchmark suite and report their results",
    "bench list": "list the experiments",
    "bench run": "measure experiments and print their tables",
    "bench reference": "add the reference results of the package to your records",
    "bench report": "write tables and figures of your records as Markdown and HTML",
    "completion": "print a completion script for bash, zsh or tcsh",
}
"""Command → summary, in the order of the help. The module in :mod:`benchmarks.cli.commands` has _ for a space."""

DESCRIPTION = "Allocate computation in a cascade recommender: measure, fit, train, control, compare."
EPILOG = """\
first steps:
  marca headroom                                     is there anything to gain in the default scenario?
  marca train --algo QMIX --out results/qmix         train a team of agents
  marca evaluate results/qmix                        play greedy episodes with it
  marca balance                                      control the price of computation through a day

marca COMMAND --help shows the options of a command. Exit status: 0 done, 1 partly failed, 2 wrong input,
130 interrupted."""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Formatter that keeps the line breaks of descriptions and leaves room for long options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def add_argument(self, action: argparse.Action) -> None:
        """Add an action, with room for the indentation of subcommands."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment

    def _format_action(self, action: argparse.Action) -> str:
        """Format an action; a list of subcommands has no heading line of its own."""
        text = super()._format_action(action)
        return text.partition("\n")[2] if isinstance(action, argparse._SubParsersAction) else text


class Parser(argparse.ArgumentParser):
    """Parser whose errors are one line and suggest the nearest option."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, formatter_class=_HelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Raise :class:`InputError`."""
        kind, _, rest = message.partition(": ")
        if kind == "unrecognized arguments":
            options = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(rest.split()[0].partition("=")[0], options, n=1)
            message = f"unknown argument {rest}{f'; did you mean {near[0]}?' if near else ''}"
        raise InputError(f"{message}; see {self.prog} --help")


def build_parsers(load: Collection[str]) -> dict[str, Parser]:
    """Return the parser of every command by its name; "" is ``marca`` itself and has the others as subcommands.

    Args:
        load: commands whose modules are imported to add their options; the others have a name and a summary only.
    """
    parsers = {"": Parser("marca", DESCRIPTION, EPILOG)}
    parsers[""].add_argument("--version", action="version", version=f"marca-env {metadata.version('marca-env')}")
    subcommands = {}
    for name, summary in COMMANDS.items():
        parent, _, word = name.rpartition(" ")
        if parent not in subcommands:
            subcommands[parent] = parsers[parent].add_subparsers(
                title="commands", metavar="COMMAND", required=not parent, parser_class=Parser
            )
            if parent:  # split_command reads the second word; here it is listed in the help and takes no argument
                subcommands[parent].nargs = subcommands[parent].default = argparse.SUPPRESS
        described = f"{summary[0].upper()}{summary[1:]}."
        parser = subcommands[parent].add_parser(word, prog=f"marca {name}", help=summary, description=described)
        if name in load:
            module = importlib.import_module(f"{__package__}.commands.{name.replace(' ', '_')}")
            module.add_arguments(parser)
            parser.add_argument("--debug", action="store_true", help="show Python's traceback with an error")
            parser.set_defaults(run=module.run)
        parsers[name] = parser
    return parsers


def split_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the command that the arguments begin with ("" if an option comes first) and the rest of them.

    Raises:
        InputError: unknown command; the message names the nearest one.
    """
    name = ""
    for word in itertools.takewhile(lambda argument: not argument.startswith("-"), arguments):
        below = [command.removeprefix(name).strip() for command in COMMANDS if command.rpartition(" ")[0] == name]
        if not below:
            break
        if word not in below:
            message = unknown_option(f"command{name and f' of marca {name}'}", word, below)
            if name == "bench":
                message += f"; to run experiments: marca bench run {' '.join(arguments[1:])}"
            raise InputError(message)
        name = f"{name} {word}".strip()
    return name, list(arguments[len(name.split()) :])
