"""`marca score`: how well predicted values rank and fit what requests earned, slice by slice."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from rich.table import Table

from benchmarks.evaluation.predictions import Predictions, read_predictions_file
from marca_env.logs.log_files import write_table
from marca_env.utils.console import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "file", metavar="FILE", help="a row for each request, CSV or Parquet; or predictions.tsv as published"
    )
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="what each request earned (default: revenue, label or consumption)",
    )
    parser.add_argument(
        "--predictions",
        nargs="+",
        metavar="COLUMN",
        help="predicted values (default: all columns named prediction, predicted or output)",
    )
    parser.add_argument(
        "--slices",
        nargs="+",
        metavar="COLUMN",
        help="columns that group the requests, two joined by + (default: uv, w+g and a1 … a5, or all columns of "
        "whole numbers or text)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the errors of every value of each slice (.csv, .tsv, .parquet)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; return exit status 0."""
    found = read_predictions_file(args.file, label=args.label, predictions=args.predictions, slices=args.slices)
    if args.out is not None:
        write_table(found.values(), args.out)
    console = make_console()
    console.print(_table(found))
    console.print(
        "PE = predicted / earned − 1 and AbsPE = larger / smaller − 1 of a slice value's sums; means over the values "
        "of a slice, weighted by what they earned."
    )
    if found.true.sum() <= 0:
        console.print(f"Column {found.label!r} adds up to {found.true.sum():g}: no error can be weighted by it.")
    if args.out is not None:
        console.print(f"Every value of each slice is in {args.out}.")
    return 0


def _table(found: Predictions) -> Table:
    table = Table(title=f"Predictions against {found.label!r}, {len(found.true):,} requests")
    for name in ("prediction", "slice", "values", "r_s of means", "mean |PE|", "mean AbsPE"):
        table.add_column(name, justify="left" if name in ("prediction", "slice") else "right")
    for row in found.errors().to_dict("records"):
        errors = (f"{row['spearman']:.3f}", f"{row['pe']:.1%}", f"{row['abs_pe']:.1%}")
        numbers = (row["spearman"], row["pe"], row["abs_pe"])
        cells = [text if math.isfinite(number) else "–" for text, number in zip(errors, numbers, strict=True)]
        table.add_row(row["prediction"], row["slice"], str(row["groups"]), *cells)
    return table
