"""The ``marca`` command: dispatches to :mod:`benchmarks.commands`, turns user errors into one line and status 2."""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib import metadata

from marca_env.errors import InputError, unknown_option

COMMANDS = {
    "testbench": "measure what the stages cost, on a running service",
    "fit": "fit the cost and revenue models of a scenario from logs",
    "train": "train an algorithm, offline from a request log or online in the environment",
    "simulate": "replay a day of traffic under several allocation policies",
    "headroom": "how much better than the best fixed action one could do in a scenario",
}
INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit status (0 done, 2 bad input, 130 interrupted)."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="marca", description="Allocate computation in a cascade recommender.")
    parser.add_argument("--version", action="version", version=f"marca-env {metadata.version('marca-env')}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((a for a in arguments if not a.startswith("-")), None)
    if wanted is not None and wanted not in COMMANDS:
        return _fail(unknown_option("command", wanted, COMMANDS))
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == wanted:
            module = importlib.import_module(f"benchmarks.commands.{name}")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
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
