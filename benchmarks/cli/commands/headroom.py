"""`marca headroom`: what better allocation could earn in a scenario, bounded with true expected values."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from benchmarks.cli.arguments import SCENARIO_HELP
from benchmarks.days.artefacts import true_pool, truth_note
from benchmarks.days.headroom import GAINS, REQUESTS, SEED, TRUTHS, Card, card, headroom, least_share
from marca_env.scenario.scenario import Scenario
from marca_env.utils.argument_types import checked_path
from marca_env.utils.console import make_console
from marca_env.utils.files import write_json
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
        default=REQUESTS,
        metavar="N",
        help="test requests of a live cascade, each evaluated exactly (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=SEED, metavar="N", help="seed of the requests (default: %(default)s)"
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
    parser.add_argument("--json", metavar="FILE", help="write the card of the task to this file")
    parser.add_argument(
        "--prices",
        type=float,
        nargs="+",
        metavar="PRICE",
        help="prices of the card, one per cluster, in currency per core-second (default: the scenario's, else those "
        "that fit its budgets at the peak)",
    )
    parser.add_argument(
        "--truth",
        default="cascade",
        metavar="NAME",
        help=f"whose outcomes the card takes as true, one of: {', '.join(TRUTHS)}; a scenario without a live cascade "
        "has its environment's (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; return exit status 0."""
    budgets = [as_number("--budgets", share, 0, MOST_BUDGET) for share in args.budgets or ()]
    scenario = Scenario.load(args.scenario)
    console = make_console()
    if args.budgets or not (scenario.prices or scenario.window):
        _print_budgets(console, scenario, args, budgets)
    asks_for_card = args.json is not None or args.prices is not None or args.truth != TRUTHS[0]
    if scenario.prices or scenario.window or asks_for_card:
        made = card(
            scenario,
            prices=args.prices,
            requests=args.requests,
            seed=args.seed,
            costs=args.costs,
            truth=args.truth,
        )
        _print_card(console, made)
        if args.json is not None:
            write_json(checked_path(args.json, "--json"), made.to_dict())
    return 0


def _print_budgets(console: Console, scenario: Scenario, args: argparse.Namespace, budgets: list[float]) -> None:
    """Print the gains at each budget."""
    pool = true_pool(scenario, args.requests, args.seed, args.costs)
    rows = headroom(pool, budgets or [b for b in BUDGETS if b >= least_share(pool)])
    view = Table(title=f"Headroom of scenario {scenario.name!r}: gain over the best static action that fits")
    names = ["budget", "static", "truncation only", "independent stages", "joint (bound)", "per request (bound)"]
    for name in names:
        view.add_column(name, justify="right")
    for row in rows:
        gains = [row.truncation, row.independent, row.joint, row.hindsight]
        view.add_row(f"{row.share:.1%}", f"{row.static:.4f}", *[f"{g:+.1%}" for g in gains])
    console.print(view)
    if (note := truth_note(scenario)) is not None:
        console.print(note)


def _print_card(console: Console, made: Card) -> None:
    """Print the rows of a card, with how each was computed."""
    prices = ", ".join(f"{price:g}" for price in made.prices)
    view = Table(title=f"Card of {made.scenario!r}: net revenue per request at prices {prices}")
    for name in ("decisions", "net revenue", "gain"):
        view.add_column(name, justify="left" if name == "decisions" else "right")
    view.add_column("how")
    view.add_row(
        "random", f"{made.random:.4g}", _gain((made.random - made.static) / abs(made.static)), made.how["random"]
    )
    view.add_row("best static", f"{made.static:.4g}", "", made.how["static"])
    for row in GAINS:
        value, gain = made.values[row], made.gains[row]
        if value is not None and gain is not None:
            view.add_row(row.replace("_", " "), f"{value:.4g}", _gain(gain), made.how[row])
    console.print(view)
    options = ", ".join(f"{name} {option}" for name, option in made.static_action.items())
    console.print(f"Evaluated on {made.how['requests']} ({made.requests:,}). Best static action: {options}.")


def _gain(gain: float) -> str:
    return f"{gain:+.1%}"
