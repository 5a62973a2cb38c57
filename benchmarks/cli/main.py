"""The ``marca`` command: dispatches to :mod:`benchmarks.cli`, turns user errors into one line and status 2."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from importlib import metadata
from typing import NoReturn

from marca_env.utils.errors import InputError, unknown_option

COMMANDS = {
    "testbench": "measure what the stages cost, on a running service",
    "fit": "fit the cost and revenue models of a scenario from logs",
    "train": "train an algorithm, offline from a request log or online in the environment",
    "evaluate": "play greedy episodes with a trained policy",
    "balance": "fit the system model and compare balancers of the price of computation on a day of traffic",
    "simulate": "replay a day of traffic under several allocation policies",
    "headroom": "how much better than the best fixed action one could do in a scenario",
    "bench": "run experiments of the benchmark suite",
}
BELOW = {
    ("train", "file"): "train_file",
    ("bench", "list"): "bench",
    ("bench", "run"): "bench_run",
    ("bench", "report"): "bench_report",
    ("bench", "reference"): "bench_reference",
}
"""Commands of two words → their modules."""
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Errors are one line, and name the nearest option."""

    def error(self, message: str) -> NoReturn:
        kind, _, rest = message.partition(": ")
        if kind == "unrecognized arguments":
            options = [o for action in self._actions for o in action.option_strings]
            near = difflib.get_close_matches(rest.split()[0].partition("=")[0], options, n=1)
            message = f"unknown argument {rest}{f'; did you mean {near[0]}?' if near else ''}"
        raise InputError(f"{message}; see {self.prog} --help")

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def, override]
        found, surplus = self.parse_known_args(args, namespace)
        if surplus:
            getattr(found, "parser", self).error(f"unrecognized arguments: {' '.join(surplus)}")
        return found


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit status (0 done, 1 done in part, 2 bad input, 130 interrupted)."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = Parser(prog="marca", description="Allocate computation in a cascade recommender.")
    parser.add_argument("--version", action="version", version=f"marca-env {metadata.version('marca-env')}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((a for a in arguments if not a.startswith("-")), None)
    if wanted is not None and wanted not in COMMANDS:
        return _fail(unknown_option("command", wanted, COMMANDS))
    if tuple(arguments[:2]) in BELOW:
        return _run(_two_words(*arguments[:2]), arguments[2:])
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == wanted:
            module = importlib.import_module(f"benchmarks.cli.{name}")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run, parser=sub)
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    return _run(parser, arguments)


def _two_words(first: str, second: str) -> Parser:
    parser = Parser(prog=f"marca {first} {second}")
    module = importlib.import_module(f"benchmarks.cli.{BELOW[first, second]}")
    module.add_arguments(parser)
    parser.set_defaults(run=module.run, parser=parser)
    return parser


def _run(parser: Parser, arguments: list[str]) -> int:
    """Parse and run, every error of the user on one line."""
    try:
        args = parser.parse_args(arguments)
        return args.run(args) or 0
    except InputError as error:
        return _fail(str(error))
    except ImportError as error:
        if "pip install" not in str(error):  # a missing extra says what to install; anything else is a fault of ours
            raise
        return _fail(str(error))
    except KeyboardInterrupt:
        print("marca: interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED


def _fail(message: str) -> int:
    print(f"marca: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
