"""The entry point of the ``marca`` command: one-line errors and exit statuses."""

from __future__ import annotations

import sys
import traceback

from benchmarks.cli.parsers import build_parsers, split_command
from marca_env.utils.errors import InputError

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 partly failed, 2 wrong input, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        build_parsers(load=())[""].print_help(sys.stderr)
        return 2
    try:
        command, rest = split_command(arguments)
        args = build_parsers(load=[command])[command].parse_args(rest)
        return args.run(args) or 0
    except InputError as error:
        if "--debug" in arguments:
            traceback.print_exception(error)
        return _fail(str(error))
    except ImportError as error:
        if "pip install" not in str(error):  # a missing extra names its install command; anything else is a bug
            raise
        return _fail(str(error))
    except KeyboardInterrupt:
        print("marca: interrupted; finished results are saved", file=sys.stderr)
        return INTERRUPTED


def _fail(message: str) -> int:
    print(f"marca: error: {message}", file=sys.stderr)
    return 2
