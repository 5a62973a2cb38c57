"""``marca bench reference``: add the rows that come with the package to the user's records."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.cli.commands.bench_run import OUT
from benchmarks.suite.reference import add_reference_rows, reference_names
from marca_env.utils.files import check_writable

DESCRIPTION = """\
Add the rows behind the documentation's tables to your records, so that your own method is compared with all others
after it alone is measured. The rows keep their machine, versions and revision; compare seconds only between like
machines. Rows that you have measured stay."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = DESCRIPTION
    parser.add_argument("names", nargs="*", metavar="ID", help="experiments (default: all that have reference rows)")
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help="folder of the records (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Add the rows and print how many each experiment got."""
    for name in args.names or reference_names():
        check_writable(args.out / name)
        rows, selected = add_reference_rows(name, args.out)
        revisions = ", ".join(sorted({str(row.about.get("revision")) for row in rows}))
        print(f"{name}: {len(rows)} rows added" + (f", measured at revision {revisions}" if rows else ""))
        if selected.outdated:
            print(f"{name}: {len(selected.outdated)} reference rows not added: {selected.why_outdated}")
