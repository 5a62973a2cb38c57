"""`marca control`: run a controller beside decision servers; it reads telemetry and publishes the prices they use."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.cli.arguments import SCENARIO_HELP, make_current_folder_importable, names_code
from benchmarks.serving.audit import AuditLog
from benchmarks.serving.balancer_setup import LIVE_BALANCERS, live_balancer
from benchmarks.serving.controller_loop import ControllerLoop, LoopRecord
from benchmarks.serving.prices import FRESH_SECONDS, HOLD_SECONDS
from benchmarks.serving.prometheus_source import PrometheusQueries, PrometheusSource
from benchmarks.serving.shared_state import CONTROLLER, PRICES, TELEMETRY, SharedPriceBoard, TelemetrySpool
from benchmarks.serving.stop_signals import stop_on_signals
from benchmarks.serving.telemetry import TelemetrySource
from marca_env.scenario.scenario import Scenario
from marca_env.utils.argument_types import checked_path
from marca_env.utils.files import lock_output
from marca_env.utils.validation import as_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--state", required=True, metavar="DIR", help="folder that the servers were given with --state; prices go there"
    )
    parser.add_argument("--scenario", default="default", metavar="NAME", help=SCENARIO_HELP)
    parser.add_argument(
        "--balancer",
        default="feedback",
        metavar="NAME",
        help=f"one of: {', '.join(LIVE_BALANCERS)}; or your own by its dotted path (default: %(default)s)",
    )
    parser.add_argument("--model", metavar="DIR", help="folder of a system model, for mpc and adaptive")
    parser.add_argument("--log", metavar="FILE", help="system log of the past days, for mpc and adaptive")
    parser.add_argument(
        "--telemetry",
        metavar="FILE",
        help="YAML with queries to Prometheus (default: what the servers get by POST /telemetry)",
    )
    parser.add_argument(
        "--period", type=float, default=60.0, metavar="S", help="seconds between readings (default: %(default)g)"
    )
    parser.add_argument(
        "--utc-offset",
        type=float,
        default=0.0,
        metavar="H",
        help="hours by which the clock of the system model is ahead of UTC, for --telemetry (default: %(default)g)",
    )
    parser.add_argument("--audit", metavar="DIR", help="folder for a row a minute: seen, expected, set, and why")


def run(args: argparse.Namespace) -> int:
    """Run the controller until it is stopped; return exit status 0."""
    if names_code(args.balancer):
        make_current_folder_importable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = checked_path(args.state, "--state")
    period = as_number("--period", args.period, 1e-2, 86_400.0)
    scenario = Scenario.load(args.scenario)
    source = _source(args, scenario, folder)
    with lock_output(folder / CONTROLLER, is_file=True):
        board = SharedPriceBoard(
            folder / PRICES, scenario.cluster_names, fresh_seconds=FRESH_SECONDS, hold_seconds=HOLD_SECONDS
        )
        loop = ControllerLoop(
            live_balancer(args.balancer, scenario, model=args.model, log=args.log),
            source,
            board,
            period,
            budgets=scenario.budgets,
            name=args.balancer,
            state_file=folder / CONTROLLER,
            on_record=_audit(args.audit, scenario),
        )
        goes_on = loop.restore()
        latest = board.latest
        verb, version = "Continuing" if goes_on else "Starting", 0 if latest is None else latest.version
        names = ", ".join(scenario.cluster_names)
        print(f"{verb} {args.balancer} for {names}: prices in {folder}, version {version}. Ctrl-C stops.", flush=True)
        with stop_on_signals() as stop:
            loop.run(stop)
    return 0


def _source(args: argparse.Namespace, scenario: Scenario, folder: Path) -> TelemetrySource:
    """Return where the readings come from."""
    budgets = scenario.budgets.tolist()
    if args.telemetry is None:
        return TelemetrySpool(folder / TELEMETRY, scenario.cluster_names, budgets)
    queries = PrometheusQueries.read(checked_path(args.telemetry, "--telemetry"))
    offset = 3600.0 * as_number("--utc-offset", args.utc_offset, -24.0, 24.0)
    return PrometheusSource(queries, scenario.cluster_names, budgets, utc_offset=offset)


def _audit(folder: str | None, scenario: Scenario) -> Callable[[LoopRecord], None] | None:
    if folder is None:
        return None
    return partial(_write, AuditLog(checked_path(folder, "--audit"), 0.0, minutes="controller"), scenario.cluster_names)


def _write(audit: AuditLog, clusters: tuple[str, ...], record: LoopRecord) -> None:
    audit.minute(record.row(clusters))
