"""``marca bench report``: write tables and figures of records as Markdown and HTML."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.cli.arguments import make_current_folder_importable
from benchmarks.cli.commands.bench_run import OUT
from benchmarks.suite import reference
from benchmarks.suite.own_experiments import has_own_code
from benchmarks.suite.registry import experiment_names, import_experiment
from benchmarks.suite.report import write_pages, write_report
from marca_env.utils.errors import InputError
from marca_env.utils.files import check_writable

DESCRIPTION = """\
Write the tables and figures of recorded experiments, with the paper's tables, machines, versions, times and the
commands that measure them again: report.md and report.html, which needs no other file, or a Markdown page for each
experiment.

  marca bench report                                              your records, in results/report
  marca bench report --reference --pages --to docs/results        the package's records, as pages of a site"""
TO = Path("results/report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = DESCRIPTION
    parser.add_argument("names", nargs="*", metavar="ID", help="experiments (default: all that have records)")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"folder of the records (default: {OUT})")
    parser.add_argument("--reference", action="store_true", help="report the package's reference records instead")
    parser.add_argument(
        "--to", type=Path, default=TO, metavar="DIR", help="folder of the report (default: %(default)s)"
    )
    parser.add_argument(
        "--pages",
        action="store_true",
        help="write index.md and a Markdown page for each experiment, with figures as files; no dates but those of the "
        "records, so that the same records give the same files",
    )


def run(args: argparse.Namespace) -> int:
    """Write the report; return 1 if something that is recorded cannot be shown."""
    if args.reference and args.out is not None:
        raise InputError("--reference and --out exclude each other; leave one of them out")
    out = reference.FOLDER if args.reference else args.out or OUT
    if set(args.names) - set(experiment_names()) or has_own_code(out):
        make_current_folder_importable()
    for name in args.names:
        import_experiment(name)
    check_writable(args.to)
    files, sections = (write_pages if args.pages else write_report)(out, args.to, args.names)
    for path in files:
        print(f"wrote {path}")
    for section in sections:
        if section.failed or not section.rows:
            print(f"marca: {section.name}: {section.warnings[-1]}", file=sys.stderr)
    return 1 if any(section.failed for section in sections) else 0
