"""`marca simulate`: replay a day of traffic under several allocation policies, with true outcomes."""

from __future__ import annotations

import argparse

from benchmarks.cli.arguments import ALLOW_CODE_HELP, SCENARIO_HELP, make_current_folder_importable, names_code
from benchmarks.cli.trace_arguments import add_trace_arguments, trace_options
from benchmarks.days.compare_policies import Day, report
from benchmarks.days.policies import POLICIES
from benchmarks.training.default_learner import ITERATIONS
from marca_env.utils.argument_types import checked_path
from marca_env.utils.files import lock_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_trace_arguments(parser, "an embedded day")
    parser.add_argument("--scenario", default="default", metavar="NAME", help=SCENARIO_HELP)
    parser.add_argument(
        "--policies",
        nargs="+",
        default=list(POLICIES),
        metavar="NAME",
        help=f"some of: {', '.join(POLICIES)}; your own by their dotted paths, such as my_module.Mine",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="seeds of the arrivals (default: 0 1 2)"
    )
    parser.add_argument(
        "--checkpoint", metavar="DIR", help="policy folder of the marca policies (default: train one and store it)"
    )
    parser.add_argument(
        "--single-checkpoint", metavar="DIR", help="policy folder of rl-mpca (default: train one and store it)"
    )
    parser.add_argument("--allow-code", nargs="+", action="extend", default=[], metavar="PATH", help=ALLOW_CODE_HELP)
    parser.add_argument(
        "--requests",
        type=int,
        default=3000,
        metavar="N",
        help="test requests on which the policies are compared, each evaluated exactly (default: %(default)s)",
    )
    parser.add_argument(
        "--iterations",
        type=int,
        default=ITERATIONS,
        metavar="N",
        help="training iterations where a checkpoint is missing (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        default="results/simulate",
        metavar="DIR",
        help="folder for tables and the figure (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; return exit status 0, or 130 after an interruption."""
    if names_code(*args.policies, *args.allow_code):
        make_current_folder_importable()
    out = checked_path(args.out, "--out")
    with lock_output(out):
        day = Day.prepare(
            scenario=args.scenario,
            trace=args.trace,
            minutes=args.minutes,
            start=args.start,
            trace_options=trace_options(args, args.trace),
            policies=args.policies,
            seeds=args.seeds,
            checkpoint=args.checkpoint,
            single_checkpoint=args.single_checkpoint,
            allow_code=args.allow_code,
            requests=args.requests,
            iterations=args.iterations,
        )
        report(day, day.run(), out)
    return 130 if day.interrupted else 0
