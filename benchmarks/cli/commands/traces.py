"""`marca traces`: list public traces of traffic, or say how a file of your own would be read."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from rich.table import Table

from benchmarks.cli.trace_arguments import add_reading_arguments, trace_options
from benchmarks.suite.public_traces import PUBLIC_TRACES, PublicTrace
from marca_env.traffic.minutes import MinuteSeries, duration, find_gaps, show, without_outliers
from marca_env.traffic.shipped_traces import trace_file
from marca_env.traffic.time_series import TimeSeries, TraceOptions, read_series
from marca_env.utils.console import make_console
from marca_env.utils.errors import InputError, unknown_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="public traces to describe, with their licence, source and conversion (default: list all)",
    )
    parser.add_argument("--check", metavar="FILE", help="say how this file would be read, with its gaps and outliers")
    add_reading_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; return exit status 0."""
    known = {trace.name: trace for trace in PUBLIC_TRACES}
    options = trace_options(args, args.check, "--check")
    for name in args.names:
        if name not in known:
            raise InputError(f"{unknown_option('public trace', name, known)}; for a file of yours: --check FILE")
    console = make_console()
    if args.check is not None:
        console.print(describe_file(trace_file(args.check), options), highlight=False, soft_wrap=True, markup=False)
    elif args.names:
        for name in args.names:
            console.print(describe(known[name]), highlight=False, soft_wrap=True, markup=False)
    else:
        console.print(overview())
        console.print("marca traces NAME says where a trace is published and how to convert it.", highlight=False)
    return 0


def overview() -> Table:
    """Return the table of the public traces."""
    table = Table(title="Public traces of traffic")
    for name in ("name", "what is counted", "interval", "span", "licence"):
        table.add_column(name)
    for trace in PUBLIC_TRACES:
        table.add_row(trace.name, trace.content, trace.interval, trace.span, trace.licence)
    return table


def describe(trace: PublicTrace) -> str:
    """Return licence, source and use of a public trace as lines of text."""
    lines = [
        f"{trace.name}: {trace.content}",
        f"  interval:   {trace.interval}; {trace.span}",
        f"  licence:    {trace.licence} (of the publisher, who may change it)",
        f"  published:  {trace.source}",
        f"  file:       {trace.file}",
    ]
    if trace.convert:
        lines += [
            "  convert (Python; import pandas as pd, pathlib):",
            *(f"    {line}" for line in trace.convert.splitlines()),
        ]
    return "\n".join([*lines, f"  replay:     {trace.use}", ""])


def describe_file(path: Path, options: TraceOptions) -> str:
    """Return how a file is read: columns, time, gaps and outliers, as lines of text.

    Raises:
        InputError: it cannot be read; see :func:`marca_env.traffic.time_series.read_series`.
    """
    series, notes = without_outliers(read_series(path, options), options.outliers)
    minutes = MinuteSeries(series, options.fill)
    first, last = (show(int(t)) for t in series.clock.to_local(series.instants[[0, -1]]))
    lines = [
        f"{path}: {len(series.values)} values of column {series.column.name!r}",
        f"  local time: {first} to {last}{_offsets(series)}",
        f"  interval:   {duration(series.interval)}{_resampling(series)}",
        f"  covers:     {len(minutes)} minutes ({len(minutes) / 1440:.3g} days)",
        f"  values:     median {pd.Series(series.values).median():.6g}, largest {series.values.max():.6g}",
    ]
    gaps = find_gaps(series)
    lines.append(f"  gaps:       {gaps.describe(series.clock.to_local) if len(gaps) else 'none'}")
    return "\n".join([*lines, *(f"  note:       {note}" for note in notes)])


def _offsets(series: TimeSeries) -> str:
    """Return the offsets from UTC in words."""
    offsets = sorted({int(offset) // 60_000_000 for offset in series.clock.offsets})
    if offsets == [0]:
        return ""
    return ", UTC" + " and UTC".join(f"{'-' if m < 0 else '+'}{abs(m) // 60:02d}:{abs(m) % 60:02d}" for m in offsets)


def _resampling(series: TimeSeries) -> str:
    if series.interval < 60_000_000:
        return "; averaged to minutes"
    return "; interpolated to minutes" if series.interval > 60_000_000 else ""
