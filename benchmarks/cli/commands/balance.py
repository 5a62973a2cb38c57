"""`marca balance`: fit the system model, then compare balancers of the price of computation on a day of traffic."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.cli.arguments import SCENARIO_HELP, make_current_folder_importable, names_code
from benchmarks.cli.trace_arguments import add_trace_arguments, trace_options
from benchmarks.days.balancer_report import report
from benchmarks.days.balancers import METHODS
from benchmarks.days.compare_balancers import (
    DEFAULT_METHODS,
    MODEL_OPTIONS,
    TRAFFICS,
    BalanceOptions,
    BalancerComparison,
    read_sweep,
)
from benchmarks.days.requirements import Requirements
from marca_env.scenario.scenario import Scenario
from marca_env.utils.argument_types import checked_path
from marca_env.utils.errors import InputError
from marca_env.utils.files import lock_output

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--scenario", default="default", metavar="NAME", help=SCENARIO_HELP)
    source = parser.add_argument_group("system model (default: fitted on generated telemetry)")
    source.add_argument("--model", metavar="DIR", help="folder of a saved system model")
    source.add_argument(
        "--log", metavar="FILE", help="system log to fit on; the published CSV is read without conversion"
    )
    source.add_argument(
        "--days", type=int, default=4, metavar="N", help="days of generated telemetry (default: %(default)s)"
    )
    source.add_argument(
        "--epochs",
        type=int,
        default=150,
        metavar="N",
        help="most passes of the fit over the log (default: %(default)s)",
    )
    source.add_argument(
        "--members", type=int, default=1, metavar="N", help="models in the ensemble (default: %(default)s)"
    )
    for name, kind, text in (
        ("hidden", int, "units of the two hidden layers of its networks"),
        ("windows", int, "windows of the day between which the mix of requests may change"),
        ("learning_rate", float, "step size of the fit"),
    ):
        source.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=MODEL_OPTIONS[name],
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )
    source.add_argument("--fit-only", action="store_true", help="stop after the model and its held-out errors")
    day = parser.add_argument_group("the day")
    add_trace_arguments(day, "that of --traffic")
    day.add_argument(
        "--traffic",
        default="day",
        metavar="NAME",
        help=f"without a trace, one of: {', '.join(TRAFFICS)}; day is an embedded trace, log the end of "
        "--log, the others are generated "
        "(default: %(default)s)",
    )
    day.add_argument(
        "--requests",
        type=int,
        default=600,
        metavar="N",
        help="test requests on which the methods are compared (default: %(default)s)",
    )
    day.add_argument(
        "--seeds", type=int, nargs="+", default=[0], metavar="N", help="seeds of the arrivals (default: 0)"
    )
    parser.add_argument(
        "--methods",
        nargs="*",
        default=list(DEFAULT_METHODS),
        metavar="NAME",
        help=f"some of: {', '.join(METHODS)}; your own by their dotted paths, such as my_module.Mine "
        f"(default: {' '.join(DEFAULT_METHODS)})",
    )
    parser.add_argument(
        "--tuning",
        type=int,
        default=720,
        metavar="N",
        help="minutes of each generated day to tune on (default: %(default)s)",
    )
    parser.add_argument(
        "--sweep",
        nargs="+",
        default=[],
        metavar="NAME=V,V",
        help="settings of the MPC to compare in every combination of the values",
    )
    parser.add_argument(
        "--require",
        metavar="FILE",
        help="YAML or JSON with bounds that a method must keep, such as 'nu: 0.01'; exit status 1 if it breaks one",
    )
    parser.add_argument(
        "--out",
        default="results/balance",
        metavar="DIR",
        help="folder for tables and figures (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; return exit status 0, 1 if a requirement is broken, or 130 after an interruption."""
    if names_code(*args.methods):
        make_current_folder_importable()
    names = ["scenario", "trace", "traffic", "minutes", "start", "methods", "seeds", "model", "log", "requests", "days"]
    names += ["epochs", "members", "tuning", "fit_only", *MODEL_OPTIONS]
    options = {name: getattr(args, name) for name in names}
    options["trace_options"] = trace_options(args, args.trace)
    out = checked_path(args.out, "--out")
    balance_options = BalanceOptions(sweep=read_sweep(args.sweep), **options)
    requirements = None if args.require is None else _read_requirements(args, balance_options)
    with lock_output(out):
        comparison = BalancerComparison.prepare(balance_options, out)
        if not args.fit_only:
            comparison.run()
        report(comparison, out)
    if comparison.interrupted:
        return INTERRUPTED
    if requirements is None:
        return 0
    return check_requirements(requirements, comparison.rows, comparison.minutes)


def _read_requirements(args: argparse.Namespace, options: BalanceOptions) -> Requirements:
    """Read the file of --require before anything long.

    Raises:
        InputError: nothing is replayed, or the file is not valid.
    """
    if args.fit_only:
        raise InputError("--require: nothing is replayed with --fit-only; leave one of them out")
    scenario = Scenario.load(options.scenario)
    return Requirements.read(checked_path(args.require, "--require"), scenario.cluster_names, options.methods)


def check_requirements(
    requirements: Requirements, rows: Sequence[Mapping[str, Any]], minutes: Sequence[pd.DataFrame]
) -> int:
    """Print a line for each broken requirement; return the exit status, 1 if one is broken.

    Args:
        requirements: what a method must keep.
        rows: scores of the methods and seeds.
        minutes: minutes of the methods and seeds.
    """
    broken = requirements.broken(rows, minutes)
    for line in broken:
        print(f"marca: requirement broken: {line}", file=sys.stderr)
    if not broken:
        n = len(requirements.bounds)
        print(f"{requirements.where}: {requirements.method} keeps {'the bound' if n == 1 else f'all {n} bounds'}")
    return 1 if broken else 0
