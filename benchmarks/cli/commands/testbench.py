"""``marca testbench``: measure cost and latency of each stage of a running service, bucket by bucket of its requests.

The service is the live cascade, or the target of ``--target``.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from benchmarks.cli.arguments import SCENARIO_HELP, make_current_folder_importable
from benchmarks.plotting.latency_figure import latency_figure
from marca_env.logs.log_files import read_cost_log, write_cost_log
from marca_env.models.latency_map import LatencyMap
from marca_env.scenario.scenario import Scenario
from marca_env.testbench.cascade_service import MAX_JOINT_ACTIONS, CascadeService
from marca_env.testbench.latency_check import SHARES, compare_joint_actions, mean_percentage_errors
from marca_env.testbench.target_config import load_target
from marca_env.testbench.testbench import LATENCY, TestBench, describe_machine, repeat_spread, to_cost_log
from marca_env.utils.console import make_console
from marca_env.utils.errors import InputError
from marca_env.utils.files import lock_output, write_json
from marca_env.utils.progress import track_progress
from marca_env.utils.validation import as_whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--scenario", default="default", metavar="NAME", help=SCENARIO_HELP)
    parser.add_argument(
        "--target",
        type=Path,
        metavar="FILE",
        help="YAML of a running HTTP service or Python function to measure instead",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("cost_log.csv"), metavar="FILE", help="cost log (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="replays of each bucket (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="N", help="length of one replay (default: %(default)s)"
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=300.0,
        metavar="N",
        help="seconds for all replays, which are shortened to fit (default: %(default)s)",
    )
    parser.add_argument(
        "--qps", type=float, metavar="N", help="request rate of every bucket (default: chosen for each bucket)"
    )
    parser.add_argument(
        "--utilisation", type=float, default=0.45, metavar="N", help="CPU utilisation to aim at (default: %(default)s)"
    )
    parser.add_argument(
        "--arrivals", default="uniform", metavar="NAME", help="uniform or poisson arrivals (default: %(default)s)"
    )
    parser.add_argument(
        "--machines", type=int, default=1, metavar="N", help="service processes, one core each (default: %(default)s)"
    )
    parser.add_argument(
        "--buckets", nargs="+", default=[], metavar="NAME", help="stages or components to measure, such as channel"
    )
    parser.add_argument(
        "--joint-actions",
        type=int,
        default=0,
        metavar="N",
        help="single joint actions of the live cascade to measure too, which check the latency map; draws "
        "latency.png beside the log (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of requests and arrivals (default: %(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="continue an interrupted log")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing log")


def run(args: argparse.Namespace) -> None:
    """Measure, write the log and ``machine.json`` beside it, print a table."""
    if args.out.exists() and not (args.resume or args.overwrite):
        raise InputError(f"{args.out}: exists already; pass --resume to continue it, --overwrite or another --out")
    checked = as_whole_number("--joint-actions", args.joint_actions, 0, MAX_JOINT_ACTIONS)
    if args.target is not None:  # which may name a function
        if checked:
            raise InputError("--joint-actions: only the live cascade has joint actions to measure; leave out --target")
        make_current_folder_importable()
    scenario = Scenario.load(args.scenario)
    bench = TestBench(
        scenario,
        service=partial(CascadeService, scenario, args.seed, joint_actions=checked) if checked else None,
        target=None if args.target is None else load_target(args.target),
        machines=args.machines,
        seconds=args.seconds,
        repeats=args.repeats,
        qps=args.qps,
        utilisation=args.utilisation,
        arrivals=args.arrivals,
        seed=args.seed,
    )
    with lock_output(args.out, is_file=True):
        _measure_all(args, bench)


def _measure_all(args: argparse.Namespace, bench: TestBench) -> None:
    done = read_cost_log(args.out) if args.resume and args.out.exists() else None
    log = measure(bench, args.out, done, only=args.buckets, budget=args.budget)
    print_table(log)
    print(f"wrote {args.out} and {args.out.with_name('machine.json')}")
    if args.joint_actions and not args.buckets:
        service = CascadeService(bench.scenario, args.seed, joint_actions=args.joint_actions)
        check_latency(log, service, args.out.with_name("latency.png"))


def measure(
    bench: TestBench,
    out: Path,
    done: pd.DataFrame | None = None,
    *,
    only: list[str] | None = None,
    budget: float | None = None,
) -> pd.DataFrame:
    """Run the bench; write each row to ``out`` at once, so that even a kill loses none."""
    rows: list[dict[str, Any]] = [] if done is None else [dict(row) for _, row in done.iterrows()]
    write_json(out.with_name("machine.json"), describe_machine())
    with track_progress("replaying buckets") as progress:
        for row in bench.measure(only=only or (), done=done, budget=budget, progress=progress):
            rows.append(row)
            write_cost_log(to_cost_log(rows), out)
    return to_cost_log(rows)


def print_table(log: pd.DataFrame) -> None:
    """Print the cost of each bucket, in milliseconds of one core, and its test–retest spread."""
    latency = [name for name in LATENCY if name in log]
    heads = [f"{name.removeprefix('latency_')}, ms" for name in latency]
    title = "Cost per request (Eq. 26)" + (" and latency" if latency else "")
    table = Table("stage", "component", "value", "length", "cost, core-ms", "spread", *heads, title=title)
    costs = repeat_spread(log)
    columns = ["stage", "component", "value_bucket", "queue_length", "cost", "spread", *latency]
    for stage, component, value, length, cost, spread, *times in costs[columns].to_numpy():
        shown = [_milliseconds(time) for time in times]
        table.add_row(stage, component, f"{value}", f"{length:g}", f"{1e3 * cost:.3f}", _percent(spread), *shown)
    console = make_console()
    console.print(table)
    console.print(
        f"{len(costs)} buckets, {len(log)} replays; median test–retest spread {_percent(costs['spread'].median())}; "
        f"utilisation {log['utilisation'].min():.0%} … {log['utilisation'].max():.0%}"
    )


def check_latency(log: pd.DataFrame, service: CascadeService, figure: Path) -> None:
    """Print the latency that the map predicts for single joint actions beside the measured one, and draw both.

    Args:
        log: cost log with rows of ``joint_action``, to which the map is not fitted.
        service: the service that was measured.
        figure: PNG file to write.
    """
    compared = compare_joint_actions(LatencyMap.from_log(service.scenario, log), log, service)
    table = Table(title="Latency of joint actions, ms: measured and predicted")
    for name in ("cluster", "joint action", *(f"{q} {what}" for q in SHARES for what in ("measured", "predicted"))):
        table.add_column(name, justify="right" if name != "cluster" else "left")
    for row in compared.to_dict("records"):
        pairs = [_milliseconds(row[name]) for q in SHARES for name in (q, f"predicted_{q}")]
        table.add_row(row["cluster"], str(row["joint_action"]), *pairs)
    console = make_console()
    console.print(table)
    errors = ", ".join(f"{name} {_percent(error)}" for name, error in mean_percentage_errors(compared).items())
    console.print(f"{len(compared)} held-out buckets; mean absolute percentage error: {errors}")
    latency_figure(compared, figure)
    console.print(f"Wrote {figure}")


def _milliseconds(seconds: float) -> str:
    """Format a time; nan, such as that of a row without latency, is a dash."""
    return "–" if seconds != seconds else f"{1e3 * seconds:.3f}"


def _percent(value: float) -> str:
    """Format a percentage; nan, such as the spread of a single repeat, is a dash."""
    return "–" if value != value else f"{value:.1%}"
