"""Balancers on public traces and generated days: utilisation, over-utilisation, revenue, the clairvoyant beside them.

The public traces lie where :func:`benchmarks.suite.public_data.trace_folder` looks; without them the generated days remain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.table import Table

from benchmarks.days.balancer_evaluation import JUDGE_SEED, BalancerEvaluation
from benchmarks.days.calibration import Calibration
from benchmarks.days.compare_balancers import means
from benchmarks.plotting.balancer_figures import side_by_side
from benchmarks.plotting.curves import band
from benchmarks.suite.api import Case, Row
from benchmarks.suite.public_data import available_traces, trace_folder
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.days import GENERATED, from_trace, generated

if TYPE_CHECKING:
    from benchmarks.days.balancer_evaluation import BalancerEvaluation
    from marca_env.models.request_pool import RequestPool

SEEDS = (0, 1, 2, 3, 4)
TRACES = {
    "nyc_taxi": "nyc_taxi.csv",
    "twitter_amzn": "Twitter_volume_AMZN.csv",
    "twitter_goog": "Twitter_volume_GOOG.csv",
}
METHODS = ("clairvoyant", "mpc", "feedback", "bisection", "primal-dual", "static", "slices", "mpc-real-time")
DEAR = ("mpc", "mpc-lbfgsb", "mpc-slsqp", "mpc-gradient", "mpc-cem", "mpc-shooting")
"""On the hour around the start of a sale only, with one seed: the last take up to a tenth of a second a minute."""
SALE, SALE_MINUTES = "flash-sale", 180
REQUESTS = 360
QUICK = {"days": 1, "epochs": 5, "tuning": 10, "requests": 60}
"""Little commissioning, where it only has to work."""
Effort = tuple[tuple[str, Any], ...]
"""Such options, as a key."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Every method on every day with every seed; then every way to a plan, on the hours around a sale."""
    minutes = 20 if quick else 1440
    chosen = METHODS[:3] if quick else METHODS
    days = [SALE] if quick else known_days()
    found = [case_of(m, seed, day, minutes, quick=quick) for day in days for seed in seeds for m in chosen]
    if quick:
        return found
    return found + [case_of(method, seeds[0], SALE, SALE_MINUTES, quick=False) for method in DEAR]


def case_of(
    method: str, seed: int, day: str, minutes: int, *, quick: bool, settings: Mapping[str, Any] | None = None
) -> Case:
    """A day, or its first minutes, under a balancer; ``settings`` are its own."""
    budget = {"requests": QUICK["requests"] if quick else REQUESTS, "minutes": minutes}
    config = {"commissioning": QUICK if quick else {}, "settings": dict(settings or {})}
    return Case(method, seed, task=day, budget=budget, config=config)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Judge; the minutes of a whole day are kept in the folder as ``<day>-<method>-<seed>.parquet``."""
    minutes, settings = case.budget["minutes"], case.config["settings"]
    effort: Effort = tuple(sorted(case.config["commissioning"].items()))
    judge = _judge(effort, case.task, case.seed, minutes, case.budget["requests"])
    frame, found = judge.run(case.method, settings)
    if not settings and minutes != SALE_MINUTES:
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(_frame(folder, case), index=False)
    return {**found, "commissioned": _told(judge.calibration)}


def _frame(folder: Path, case: Case) -> Path:
    return folder / f"{case.task}-{case.method}-{case.seed}.parquet"


def known_days() -> list[str]:
    """The traces that there are, and the generated days."""
    return [*available_traces(TRACES), *GENERATED]


@cache
def _calibration(effort: Effort) -> Calibration:
    """The methods of the default scenario, tuned on generated days; once in a process."""
    return Calibration(Engine.load("default"), **dict(effort))


@cache
def _pool(effort: Effort, requests: int) -> RequestPool:
    """Requests that judge."""
    return _calibration(effort).engine.pool(requests, seed=JUDGE_SEED)


@lru_cache(maxsize=1)
def _judge(effort: Effort, day: str, seed: int, minutes: int, requests: int) -> BalancerEvaluation:
    """The day with its arrivals; one is kept at a time."""
    known = _calibration(effort)
    if day in TRACES:
        course = from_trace(trace_folder() / TRACES[day], known.scenario, minutes)
    else:
        course = generated(day, known.scenario, seed, minutes)
    return BalancerEvaluation(known, course, _pool(effort, requests), seed)


def _told(known: Calibration) -> dict[str, Any]:
    """What was tuned on generated days, and the errors of the system model."""
    tuned = {"feedback": asdict(known.feedback), "rate": known.rate.tolist(), "margin": known.margin}
    return {**tuned, "system_model": known.model.report}


def tables(rows: Sequence[Row]) -> Iterable[Any]:
    """Every method on every day, in priced minutes and all; then the ways to a plan."""
    short = [row for row in rows if row.case.budget["minutes"] == SALE_MINUTES]
    whole = [row for row in rows if row.case.budget["minutes"] != SALE_MINUTES]
    for day in dict.fromkeys(row.case.task for row in whole):
        yield _day_table(day, _methods([row for row in whole if row.case.task == day]))
    if short := [row for row in short if row.case.seed == short[0].case.seed]:  # of several runs there may be more
        yield _short_table("ways to a plan, three hours of a sale, one seed", short)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Feedback, MPC and the clairvoyant side by side, a figure for each day whose minutes are there."""
    found, names = {}, ("feedback", "mpc", "clairvoyant")
    whole = [row for row in rows if row.case.budget["minutes"] != SALE_MINUTES and row.case.method in names]
    for day in dict.fromkeys(row.case.task for row in whole):
        there = [r for r in whole if r.case.task == day and _frame(folder, r.case).is_file()]
        of_seed = [{r.case.method: r for r in there if r.case.seed == s} for s in sorted({r.case.seed for r in there})]
        mine = next((found for found in of_seed if set(found) == set(names)), None)
        if mine is None:  # side by side they must have met the same arrivals
            continue
        runs = {name: pd.read_parquet(_frame(folder, mine[name].case)) for name in names}
        path = folder / f"{day}.png"
        side_by_side(runs, Scenario.load("default").cluster_names, day, path, {n: mine[n].numbers for n in names})
        found[f"{day}: load against budget, λ below"] = path
    return found


def _methods(rows: Sequence[Row]) -> dict[str, Any]:
    """Means over the seeds of each method, with intervals of μ and ν."""
    found: dict[str, Any] = {}
    for method in dict.fromkeys(row.case.method for row in rows):
        mine = [{k: v for k, v in r.numbers.items() if k != "commissioned"} for r in rows if r.case.method == method]
        found[method] = {**means(mine), "seeds": len(mine)}
        for name in ("mu", "nu", "priced_mu", "priced_nu"):
            values = np.array([list(row[name].values()) for row in mine])  # (seeds, G + 1)
            low, high = band(values)
            found[method][f"{name}_interval"] = {
                cluster: [float(low[k]), float(high[k])] for k, cluster in enumerate(mine[0][name])
            }
    return found


def _day_table(day: str, methods: Mapping[str, Any]) -> Any:
    shares = next(iter(methods.values()))["priced_share"]  # the clairvoyant's, whether or not its row is there
    clusters = [c for c in shares if c != "all"]
    priced = ", ".join(f"{shares[c]:.0%} ({c})" for c in clusters)
    table = Table(title=f"{day}: computation has a price in {priced} of the minutes", title_justify="left")
    table.add_column("method", no_wrap=True)
    for column in _columns(clusters):
        table.add_column(column, justify="right", no_wrap=True)
    for method, row in methods.items():
        cells = [str(row["seeds"]), f"{row['mu']['all']:.1%}", f"{row['nu']['all']:.2%}"]
        cells += [_interval(row, name) for name in ("priced_mu", "priced_nu")]
        cells += [f"{100 * row['priced_mu'][c]:.1f} / {100 * row['priced_nu'][c]:.2f}" for c in clusters]
        table.add_row(method, *cells, f"{row['bound_share']:.1%}", f"{row['travel']:.1%}")
    return table


def _columns(clusters: Sequence[str]) -> tuple[str, ...]:
    priced = ("μ, priced, %", "ν, priced, %", *(f"{c} μ / ν, priced, %" for c in clusters))
    return ("seeds", "μ", "ν", *priced, "of bound", "λ travel")


def _interval(row: Mapping[str, Any], name: str) -> str:
    digits = 2 if name.endswith("nu") else 1
    low, high = (100 * x for x in row[f"{name}_interval"]["all"])
    told = f"{100 * row[name]['all']:.{digits}f}"
    return told if np.isnan(low) else f"{told} [{low:.{digits}f}, {high:.{digits}f}]"


def _short_table(title: str, rows: Sequence[Row]) -> Any:
    table = Table(title=title, title_justify="left")
    for column in ("method", "μ", "ν", "of the bound", "λ travel"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        mu, nu, share, travel = (row.numbers[name] for name in ("mu", "nu", "bound_share", "travel"))
        table.add_row(row.case.method, f"{mu['all']:.2%}", f"{nu['all']:.2%}", f"{share:.2%}", f"{travel:.1%}")
    return table
