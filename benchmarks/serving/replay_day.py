"""Replay a simulated day through a real decision server: ``python -m benchmarks.serving.replay_day --policy DIR``.

It starts `marca serve` and `marca control`, plays the requests of a day minute by minute over HTTP, realises their
outcomes as `marca simulate` does, and prints revenue, μ and ν beside those of the same day in one process. The clock is
simulated: a minute takes as long as its requests need.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.days.artefacts import true_pool
from benchmarks.days.balancer_evaluation import JUDGE_SEED
from benchmarks.days.trace_days import trace_day
from benchmarks.serving.balancer_setup import LIVE_BALANCERS, live_balancer
from benchmarks.serving.plain_client import PlainClient
from benchmarks.serving.processes import running_controller, running_server
from benchmarks.serving.served_day import (
    MEASURED,
    METRICS,
    TELEMETRY,
    ClientCounts,
    InProcessPolicy,
    ScaledDay,
    ServedPolicy,
)
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.day_simulator import clairvoyant_bound, replay
from marca_env.traffic.policies import Policy, PricedPolicy
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.utilisation import overutilisation, utilisation
from marca_env.traffic.workload import Traffic
from marca_env.utils.console import make_console
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.progress import count_progress
from marca_env.utils.units import MINUTES_PER_DAY
from marca_env.utils.validation import as_whole_number

PERIOD = "3600"
"""Seconds after which a controller misses a reading: simulated minutes are as long as they need."""


@dataclass(frozen=True)
class ReplayOptions:
    """What is replayed."""

    policy: str
    balancer: str = "feedback"
    model: str | None = None
    """Folder of the system model of a planning balancer."""
    log: str | None = None
    """System log of its past days."""
    each: int = 100
    """Requests of the day that each sent request stands for."""
    batch: int = 100
    """Requests of a call."""
    seed: int = 0
    telemetry: str = METRICS
    url: str | None = None
    """A server with a controller beside it; ``None``: start both."""
    workers: int = 1
    """Processes of a server that is started."""


@dataclass(frozen=True)
class ReplayResult:
    """Minutes of the day by who decided, and what the client saw."""

    minutes: dict[str, pd.DataFrame]
    """``over HTTP``, ``in process`` (the same requests), ``all requests`` (in process) → a row per minute."""
    bounds: dict[str, float]
    """Clairvoyant dual bound of the revenue of each."""
    counts: ClientCounts
    seconds: float
    """Wall-clock time of the day over HTTP."""


OVER_HTTP, IN_PROCESS, ALL_REQUESTS = "over HTTP", "in process", "all requests"


def replay_over_http(options: ReplayOptions, pool: RequestPool, traffic: Traffic) -> ReplayResult:
    """Replay a day over HTTP, in process, and in process with all requests.

    Args:
        options: what is replayed.
        pool: kinds of request with their true outcomes.
        traffic: rates of the day.

    Raises:
        InputError: a policy of other features or clusters, a balancer that cannot be built, or a server or controller
            that does not start or answer.
    """
    policy = AllocationPolicy.load(options.policy)
    day = ScaledDay.draw(pool, traffic, options.each, options.seed)
    every = ScaledDay(draw_arrivals(pool, traffic, options.seed), 1)
    values, costs = policy.values(pool.states), policy.costs(pool.states)

    def in_process(of: ScaledDay, telemetry: str) -> PricedPolicy:
        balancer = live_balancer(options.balancer, pool.scenario, model=options.model, log=options.log)
        return InProcessPolicy(of, telemetry, options.balancer, values, costs, balancer)

    minutes = {}
    with _server(options, pool) as client, count_progress("Replaying minutes over HTTP", len(traffic)) as advance:
        start = in_process(day, options.telemetry)
        served = ServedPolicy(client, start, pool, day, options.telemetry, options.batch, options.seed)
        began = time.perf_counter()
        minutes[OVER_HTTP] = replay(served, pool, traffic, day.arrivals, advance)
        seconds = time.perf_counter() - began
    compared: dict[str, tuple[Policy, np.ndarray]] = {
        IN_PROCESS: (in_process(day, options.telemetry), day.arrivals),
        ALL_REQUESTS: (in_process(every, MEASURED), every.arrivals),
    }
    for name, (one, arrivals) in compared.items():
        minutes[name] = replay(one, pool, traffic, arrivals)
    scaled, whole = clairvoyant_bound(pool, day.arrivals), clairvoyant_bound(pool, every.arrivals)
    bounds = {OVER_HTTP: scaled, IN_PROCESS: scaled, ALL_REQUESTS: whole}
    return ReplayResult(minutes, bounds, served.counts, seconds)


@contextlib.contextmanager
def _server(options: ReplayOptions, pool: RequestPool) -> Iterator[PlainClient]:
    """Yield a client of the server, which is started with a controller unless there is one."""
    with contextlib.ExitStack() as stack:
        url = options.url
        if url is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marca-replay-")))
            state = ["--state", str(folder / "state")]
            serve = ["--policy", options.policy, "--warm", "--timeout", "10", "--workers", str(options.workers)]
            url, _ = stack.enter_context(running_server([*serve, *state], folder / "serve.log"))
            control = ["--scenario", str(pool.scenario.load_name), "--balancer", options.balancer, "--period", PERIOD]
            for option in ("model", "log"):
                if (value := getattr(options, option)) is not None:
                    control += [f"--{option}", value]
            stack.enter_context(running_controller([*control, *state], folder / "control.log"))
        client = PlainClient(url)
        stack.callback(client.close)
        yield client


def tables_of(result: ReplayResult, pool: RequestPool) -> tuple[Table, Table]:
    """Return the table of the days and that of what the client saw."""
    scenario = pool.scenario
    days = Table(title="one day, decided by a server and in one process")
    days.add_column("decided", no_wrap=True)
    for name in ("revenue", "of bound", *(f"{m} {c}" for c in scenario.cluster_names for m in "μν")):
        days.add_column(name, justify="right", no_wrap=True)
    for name, rows in result.minutes.items():
        load = rows[[f"load_{c}" for c in scenario.cluster_names]].to_numpy()
        used = zip(utilisation(load, scenario.budgets), overutilisation(load, scenario.budgets), strict=True)
        revenue = float(rows["revenue"].sum())
        shares = [f"{value:.3%}" for pair in used for value in pair]
        days.add_row(name, f"{revenue:,.1f}", f"{revenue / result.bounds[name]:.3%}", *shares)
    seen, counts = Table(title="what the client saw"), result.counts
    for name in ("requests", "unanswered", "a second", "of equal requests, others", "older prices", "statuses"):
        seen.add_column(name, justify="right")
    total = sum(counts.statuses.values())
    statuses = ", ".join(f"{name} {n:,}" for name, n in counts.statuses.most_common())
    rate = f"{total / result.seconds:,.0f}"
    seen.add_row(f"{total:,}", str(counts.unanswered), rate, str(counts.divided), str(counts.other_prices), statuses)
    return days, seen


def parser() -> argparse.ArgumentParser:
    """Return the parser of the script."""
    defaults = ReplayOptions("")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.replay_day", description=__doc__)
    parser.add_argument("--policy", required=True, metavar="DIR", help="folder of a policy, a checkpoint or a run")
    parser.add_argument(
        "--balancer", default=defaults.balancer, metavar="NAME", help=f"one of: {', '.join(LIVE_BALANCERS)}"
    )
    parser.add_argument("--model", metavar="DIR", help="folder of a system model, for mpc and adaptive")
    parser.add_argument("--log", metavar="FILE", help="system log of the past days, for mpc and adaptive")
    parser.add_argument("--url", help="server with a controller beside it, both of this policy (default: start them)")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes of the server that is started (default: 1)"
    )
    parser.add_argument(
        "--each", type=int, default=defaults.each, metavar="N", help="requests that each sent one stands for"
    )
    parser.add_argument("--batch", type=int, default=defaults.batch, metavar="N", help="requests of a call")
    parser.add_argument(
        "--requests", type=int, default=300, metavar="N", help="test requests, as in marca simulate (default: 300)"
    )
    parser.add_argument(
        "--telemetry",
        choices=TELEMETRY,
        default=METRICS,
        help="load of the telemetry: from the server's metrics, or measured in the environment (default: metrics)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the arrivals (default: 0)")
    parser.add_argument("--out", metavar="FILE", help="CSV file for the minutes")
    parser.add_argument("--trace", metavar="FILE", help="traffic, as in marca simulate (default: an embedded day)")
    parser.add_argument(
        "--minutes", type=int, default=MINUTES_PER_DAY, metavar="N", help="length of the replay (default: %(default)s)"
    )
    parser.add_argument("--start", metavar="TIME", help="first minute of the trace, such as '2024-03-04 18:00'")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return 1 if a request had no answer, 2 for wrong input."""
    args = parser().parse_args(argv)
    try:
        result, pool = _run(args)
    except (InputError, OSError) as error:
        print(f"replay_day: error: {one_line(error)}", file=sys.stderr)
        return 2
    console = make_console()
    for table in tables_of(result, pool):
        console.print(table)
    if args.out is not None:
        parts = [rows.assign(decided=name) for name, rows in result.minutes.items()]
        pd.concat(parts).to_csv(args.out, index=False)
    return int(result.counts.unanswered > 0)


def _run(args: argparse.Namespace) -> tuple[ReplayResult, RequestPool]:
    options = ReplayOptions(
        policy=args.policy,
        balancer=args.balancer,
        model=args.model,
        log=args.log,
        each=as_whole_number("--each", args.each, 1),
        batch=as_whole_number("--batch", args.batch, 1),
        seed=as_whole_number("--seed", args.seed),
        telemetry=args.telemetry,
        url=args.url,
        workers=as_whole_number("--workers", args.workers, 1),
    )
    scenario = AllocationPolicy.load(args.policy).scenario
    traffic = trace_day(args.trace, scenario, args.minutes, args.start).traffic
    pool = true_pool(scenario, args.requests, JUDGE_SEED)
    return replay_over_http(options, pool, traffic), pool


if __name__ == "__main__":
    sys.exit(main())
