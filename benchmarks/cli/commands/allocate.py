"""`marca allocate`: give the actions of a user's files to requests within quotas, by the values of a model."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from rich.table import Table

from benchmarks.evaluation.allocation_files import REQUESTS, VALUE, AllocationTask, read_pairs, read_task
from marca_env.logs.log_files import write_table
from marca_env.utils.console import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "values",
        metavar="VALUES",
        help="values of pairs: columns of state and action, and 'value'; or expert_scores.csv as published",
    )
    parser.add_argument(
        "--quotas",
        required=True,
        metavar="FILE",
        help="how often each action may be taken: columns of the action, and 'quota'; or action_quota.csv as published",
    )
    parser.add_argument(
        "--counts",
        required=True,
        metavar="FILE",
        help="requests of each state: columns of the state, and 'requests'; or state_counts.csv as published",
    )
    parser.add_argument(
        "--requests-column",
        metavar="NAME",
        help="column of --counts with the number of requests (default: requests; sn in the published file)",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="FILE",
        help="other allocations, with 'requests' for each pair, as a share of the greedy one (Return%%)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the allocation (.csv, .tsv or .parquet)")


def run(args: argparse.Namespace) -> int:
    """Run the command; return exit status 0."""
    task = read_task(args.values, args.quotas, args.counts, requests_column=args.requests_column)
    others = {path: read_pairs(path, task.columns, REQUESTS) for path in args.compare}
    console = make_console()
    if args.out is not None:
        write_table(task.allocation, args.out)
    table = Table(title="Greedy allocation within the quotas, by the values of each pair")
    for name in ("allocation", "requests", "without an action", "total value", "value per request", "Return%"):
        table.add_column(name, justify="left" if name == "allocation" else "right")
    for name, allocation in {"greedy": task.allocation, **others}.items():
        table.add_row(Path(name).name, *_totals(task, allocation))
    console.print(table)
    console.print(_quota_note(task))
    if args.out is not None:
        console.print(f"Written to {args.out}.")
    return 0


def _totals(task: AllocationTask, allocation: pd.DataFrame) -> list[str]:
    served, earned = int(allocation[REQUESTS].sum()), float(task.earned(allocation).sum())
    per_request = f"{earned / served:.6g}" if served else "–"
    return_percent = f"{task.return_percent(allocation):.2f}" if task.earned(task.allocation).sum() > 0 else "–"
    return [f"{served:,}", f"{int(task.counts.sum()) - served:,}", f"{earned:,.6g}", per_request, return_percent]


def _quota_note(task: AllocationTask) -> str:
    pairs = int((task.values > float("-inf")).sum())
    return (
        f"{len(task.states):,} states, {len(task.actions):,} actions, {pairs:,} pairs with a {VALUE}; "
        f"{int(task.counts.sum()):,} requests, quotas of {int(task.quotas.sum()):,} in total."
    )
