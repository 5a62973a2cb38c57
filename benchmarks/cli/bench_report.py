"""``marca bench report``: tables and figures of what was measured, as Markdown and as one HTML file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.cli.arguments import make_current_folder_importable
from benchmarks.cli.bench_run import OUT
from benchmarks.suite.registry import experiment
from benchmarks.suite.report import write
from marca_env.utils.files import check_writable

DESCRIPTION = """\
Write report.md and report.html, which needs no other file, from whatever records there are: tables and figures of every
experiment, the paper's tables beside them, machines, versions, times and the commands that measure it again."""
TO = Path("results/report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.description = DESCRIPTION
    parser.add_argument("names", nargs="*", metavar="ID", help="experiments (default: all that have records)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="of the records (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=TO, metavar="DIR", help="of the report (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write both; status 1 if something that was measured cannot be shown."""

    make_current_folder_importable()
    for name in args.names:
        experiment(name)
    check_writable(args.to)
    files, sections = write(args.out, args.to, args.names)
    for path in files.values():
        print(f"wrote {path}")
    for part in sections:
        if part.failed or not part.rows:
            print(f"marca: {part.name}: {part.warnings[-1]}", file=sys.stderr)
    return 1 if any(part.failed for part in sections) else 0
