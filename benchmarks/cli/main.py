"""The entry point of the ``marca`` command: one-line errors and exit statuses."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress

from benchmarks.cli.parsers import build_parsers, split_command
from marca_env.utils.errors import InputError, is_missing_extra
from marca_env.utils.files import describe_fault
from marca_env.utils.foreign_agents import foreign_agents

INTERRUPTED, PIPE_CLOSED = 130, 141


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 partly failed, 2 wrong input, 130 interrupted."""
    if (problem := foreign_agents()) is not None:
        return _fail(problem)
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        build_parsers(load=())[""].print_help(sys.stderr)
        return 2
    try:
        command, rest = split_command(arguments)
        args = build_parsers(load=[command])[command].parse_args(rest)
        status = args.run(args) or 0
        sys.stdout.flush()
        return status
    except InputError as error:
        if "--debug" in arguments:
            traceback.print_exception(error)
        return _fail(str(error))
    except BrokenPipeError:  # such as `marca bench list | head`
        return _abandon_output()
    except OSError as error:  # such as a full disk
        if not error.errno:
            raise
        if "--debug" in arguments:
            traceback.print_exception(error)
        return _fail(describe_fault(error)) if error.filename else _abandon_output(describe_fault(error))
    except ImportError as error:
        if not is_missing_extra(error):
            raise
        return _fail(str(error))
    except KeyboardInterrupt:
        print("marca: interrupted; finished results are saved", file=sys.stderr)
        return INTERRUPTED


def _abandon_output(message: str = "") -> int:
    """Print nothing more to the standard output, which cannot be written; Python would fail again at its end."""
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _fail(message) if message else PIPE_CLOSED


def _fail(message: str) -> int:
    print(f"marca: error: {message}", file=sys.stderr)
    return 2
