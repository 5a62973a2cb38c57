"""`marca headroom`: what better allocation could earn in a scenario, bounded with true expected values."""

from __future__ import annotations

import argparse

from rich.table import Table

from benchmarks.cli.arguments import SCENARIO_HELP
from benchmarks.days.artefacts import true_pool, truth_note
from benchmarks.days.headroom import headroom, least_share
from marca_env.scenario.scenario import Scenario
from marca_env.utils.console import make_console
from marca_env.utils.validation import as_number

BUDGETS = (0.125, 0.2, 0.5)
MOST_BUDGET = 100.0
"""Largest budget, as a share; above 1 nothing binds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--scenario", default="default", metavar="NAME", help=SCENARIO_HELP)
    parser.add_argument(
        "--requests",
        type=int,
        default=6000,
        metavar="N",
        help="test requests, each evaluated exactly (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=101, metavar="N", help="seed of the requests (default: %(default)s)"
    )
    parser.add_argument(
        "--budgets",
        type=float,
        nargs="+",
        metavar="SHARE",
        help="budgets, as shares of the cost of the most expensive action on each cluster (default: those of "
        f"{', '.join(map(str, BUDGETS))} that the cheapest action fits)",
    )
    parser.add_argument(
        "--costs", metavar="FILE", help="cost log (default: the one beside the scenario's models; needs a live cascade)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; return exit status 0."""
    budgets = [as_number("--budgets", share, 0, MOST_BUDGET) for share in args.budgets or ()]
    scenario = Scenario.load(args.scenario)
    pool = true_pool(scenario, args.requests, args.seed, args.costs)
    rows = headroom(pool, budgets or [b for b in BUDGETS if b >= least_share(pool)])
    view = Table(title=f"Headroom of scenario {scenario.name!r}: gain over the best static action that fits")
    names = ["budget", "static", "truncation only", "independent stages", "joint (bound)", "per request (bound)"]
    for name in names:
        view.add_column(name, justify="right")
    for row in rows:
        gains = [row.truncation, row.independent, row.joint, row.hindsight]
        view.add_row(f"{row.share:.1%}", f"{row.static:.4f}", *[f"{g:+.1%}" for g in gains])
    console = make_console()
    console.print(view)
    if (note := truth_note(scenario)) is not None:
        console.print(note)
    return 0
