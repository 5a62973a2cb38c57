"""Options of the traffic trace, the same in every command that replays one."""

from __future__ import annotations

import argparse

from marca_env.traffic.shipped_traces import shipped_traces
from marca_env.traffic.time_series import FILLS, OUTLIERS, TraceOptions
from marca_env.utils.errors import InputError


def add_trace_arguments(parser: argparse._ActionsContainer, default: str) -> None:
    """Add --trace, --minutes, --start and how the trace is read.

    Args:
        parser: parser or group that gets the options.
        default: traffic without a trace, for the help.
    """
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="CSV or Parquet file with a column of dates and one of values, also compressed, or a trace of the "
        f"package ({', '.join(shipped_traces())}); rescaled to the scenario's peak (default: {default})",
    )
    parser.add_argument(
        "--minutes", type=int, default=1440, metavar="N", help="length of the replay (default: %(default)s)"
    )
    parser.add_argument(
        "--start",
        metavar="TIME",
        help="first minute of the trace, such as 2014-07-08 (default: a midnight that has a week before it)",
    )
    add_reading_arguments(parser)


def add_reading_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the options of how a trace is read."""
    parser.add_argument("--time-column", metavar="NAME", help="column of dates (default: found by name and values)")
    parser.add_argument("--value-column", metavar="NAME", help="column of values (default: found by name and values)")
    parser.add_argument(
        "--timezone",
        metavar="NAME",
        help="time zone of the local clock, such as Europe/Berlin (default: the clock of the stamps)",
    )
    parser.add_argument(
        "--fill",
        default="interpolate",
        metavar="HOW",
        help=f"value in gaps of more than three intervals, one of: {', '.join(FILLS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--outliers",
        default="drop",
        metavar="USE",
        help=f"use of single absurd samples, one of: {', '.join(OUTLIERS)} (default: %(default)s)",
    )


def trace_options(args: argparse.Namespace, file: str | None, flag: str = "--trace") -> TraceOptions:
    """Return how to read the trace.

    Args:
        args: parsed arguments.
        file: the trace, if there is one.
        flag: the option that names it.

    Raises:
        InputError: an unknown time zone or choice, or options without a trace.
    """
    options = TraceOptions(args.time_column, args.value_column, args.timezone, args.fill, args.outliers)
    if file is None and options != TraceOptions():
        raise InputError(f"the options say how a trace is read, and there is none; add {flag} FILE")
    return options
