"""``marca bench reference``: put the rows that come with the package into the records."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.cli.bench_run import OUT
from benchmarks.suite.reference import add, available
from benchmarks.training.run_log import check_writable

DESCRIPTION = """\
Add the rows behind the README's tables to your records, so that a method of your own is compared with all others as
soon as it alone is measured. They keep the machine, the versions and the revision of which they are; seconds compare
with yours only as far as the machines do. What you have measured yourself stays."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.description = DESCRIPTION
    parser.add_argument("names", nargs="*", metavar="ID", help="experiments (default: all that have such rows)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="of the records (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Say how many rows each experiment got."""

    for name in args.names or available():
        check_writable(args.out / name)
        rows, found = add(name, args.out)
        of = ", ".join(sorted({str(row.about.get("revision")) for row in rows}))
        print(f"{name}: {len(rows)} rows added" + (f", measured at revision {of}" if rows else ""))
        if found.outdated:
            print(f"{name}: {len(found.outdated)} of the package's rows not added: {found.why_outdated}")
    return 0
