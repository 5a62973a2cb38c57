"""`marca decide`: decide the requests of Parquet files of any size with a trained policy at given prices."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.table import Table

from agents.policy.allocation_policy import AllocationPolicy, policy_folder
from benchmarks.cli.arguments import (
    ALLOW_CODE_HELP,
    FEATURES_HELP,
    join_cluster,
    make_current_folder_importable,
    names_code,
)
from benchmarks.cli.price_arguments import add_prices_argument, parse_prices
from benchmarks.serving.batch import BatchDecider
from benchmarks.serving.batch_files import FileTask, count_rows, is_decided, plan_files
from benchmarks.serving.batch_job import BatchJob, JobResult, file_sum, policy_sum, run_here, run_on_ray
from benchmarks.serving.request_states import OK, RequestStates
from benchmarks.serving.static_rule import BEST, make_static_rule
from marca_env.integration.feature_coding import FILE as FEATURES_FILE
from marca_env.utils.argument_types import checked_path
from marca_env.utils.console import make_console
from marca_env.utils.errors import InputError
from marca_env.utils.files import lock_output
from marca_env.utils.model_files import check_device
from marca_env.utils.progress import count_progress
from marca_env.utils.validation import as_whole_number

_MOST_ROWS = 10**8  # of a batch
_MOST_ERRORS = 10  # lines of files that could not be decided


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--policy", required=True, metavar="DIR", help="policy folder, training checkpoint or run")
    add_prices_argument(parser)
    parser.add_argument(
        "--requests", nargs="+", required=True, metavar="FILE", help="Parquet files, folders or patterns of requests"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for a file of decisions for each input")
    parser.add_argument("--features", metavar="FILE", help=FEATURES_HELP)
    parser.add_argument(
        "--keys", nargs="+", action="extend", default=[], metavar="COLUMN", help="columns to copy to the decisions"
    )
    parser.add_argument(
        "--static",
        default=BEST,
        metavar="ACTION",
        help="action of requests with an invalid value: best-static, option indices such as 0,2,1, or "
        "decision=option,… (default: %(default)s)",
    )
    parser.add_argument("--values", action="store_true", help="also write the expected value and costs")
    parser.add_argument(
        "--batch-size", type=int, default=65_536, metavar="N", help="rows in memory at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="files decided at a time (default: 1 in this process; with --address one for each CPU)",
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="head of a running Ray cluster, or auto")
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="torch device of the policy, such as cuda (default: %(default)s)",
    )
    parser.add_argument("--again", action="store_true", help="decide files again that were decided before")
    parser.add_argument("--allow-code", nargs="+", action="extend", default=[], metavar="PATH", help=ALLOW_CODE_HELP)


def run(args: argparse.Namespace) -> int:
    """Run the command; return exit status 0, or 1 if some files could not be decided."""
    if args.workers is not None:
        as_whole_number("--workers", args.workers, 1)
    as_whole_number("--batch-size", args.batch_size, 1, _MOST_ROWS)
    if names_code(*args.allow_code):
        make_current_folder_importable()
    out = checked_path(args.out, "--out")
    planned = plan_files(args.requests, out)
    policy = AllocationPolicy.load(args.policy, trust=args.allow_code, device=check_device(args.device))
    job = _make_job(args, policy)
    decider = job.build(policy)
    if args.address is not None:
        join_cluster(args.address)
    with lock_output(out):
        tasks = planned if args.again else _open_tasks(planned, job)
        began = time.monotonic()
        result = _run(args, job, decider, tasks)
        _report(result, len(planned) - len(tasks), time.monotonic() - began, out)
    return 1 if result.errors else 0


def _make_job(args: argparse.Namespace, policy: AllocationPolicy) -> BatchJob:
    """Return the job of the arguments, with sums of the files that it depends on."""
    scenario, folder = policy.scenario, policy_folder(args.policy).absolute()
    own = folder / FEATURES_FILE
    features = Path(args.features).absolute() if args.features else own if own.is_file() else None
    RequestStates.load(scenario, features)  # refuses a coding that does not fit, before its sum is taken
    return BatchJob(
        policy=str(folder),
        policy_sum=policy_sum(folder, scenario),
        prices=parse_prices(args.prices, scenario.cluster_names),
        static_action=make_static_rule(policy, args.static).action,
        features=None if features is None else str(features),
        features_sum=file_sum(features),
        keys=tuple(args.keys),
        with_values=args.values,
        batch_size=args.batch_size,
        trust=tuple(args.allow_code),
        device=args.device,
    )


def _open_tasks(planned: Sequence[FileTask], job: BatchJob) -> list[FileTask]:
    """Return the tasks whose result is missing or made from another input; say which inputs have changed."""
    settings, tasks = job.settings(), []
    for task in planned:
        is_done, change = is_decided(task, settings)
        if change:
            print(change, file=sys.stderr)
        if not is_done:
            tasks.append(task)
    return tasks


def _total_rows(tasks: Sequence[FileTask]) -> int:
    """Return the rows of all files that can be read; the others are reported when their turn comes."""
    total = 0
    for task in tasks:
        with suppress(InputError):
            total += count_rows(task.source)
    return total


def _run(args: argparse.Namespace, job: BatchJob, decider: BatchDecider, tasks: Sequence[FileTask]) -> JobResult:
    with count_progress("decide", _total_rows(tasks)) as advance:
        if not tasks or (args.address is None and args.workers in (None, 1)):
            return run_here(job, tasks, decider, advance)
        absolute = [FileTask(task.source.absolute(), task.target.absolute()) for task in tasks]
        if args.address is not None:
            return run_on_ray(job, absolute, args.workers, advance)
        from agents.rllib.core.cluster import start_ray

        start_ray(num_cpus=args.workers)
        return run_on_ray(job, absolute, args.workers, advance)


def _report(result: JobResult, before: int, seconds: float, out: Path) -> None:
    """Print what was decided, by status, and the faults of files that could not be."""
    console = make_console()
    table = Table(title=f"Decisions in {out}")
    for name in ("status", "requests"):
        table.add_column(name, justify="right" if name == "requests" else "left")
    for status, count in sorted(result.status.items(), key=lambda pair: (pair[0] != OK, -pair[1])):
        table.add_row(status if status == OK else f"{status} (static action)", f"{count:,}")
    if result.status:
        console.print(table)
    rate = f", {result.rows / seconds:,.0f} a second" if result.rows else ""
    console.print(f"Files: {result.files} decided, {before} decided before, {len(result.errors)} failed.")
    console.print(f"Requests: {result.rows:,} in {seconds:.1f} s{rate}.")
    for error in result.errors[:_MOST_ERRORS]:
        print(f"marca: error: {error}", file=sys.stderr)
    if (more := len(result.errors) - _MOST_ERRORS) > 0:
        print(f"marca: error: {more} more files failed; run the command again to see them", file=sys.stderr)
