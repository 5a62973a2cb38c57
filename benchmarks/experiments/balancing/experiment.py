"""Balancers on public traces and generated days: utilisation μ, over-utilisation ν and revenue, beside the clairvoyant.

The public traces are read from :func:`benchmarks.suite.public_data.trace_folder`; without them only the generated days
are measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from benchmarks.days.balancer_evaluation import JUDGE_SEED, BalancerEvaluation
from benchmarks.days.balancers import check_methods
from benchmarks.days.calibration import Calibration
from benchmarks.experiments.balancing.report_tables import day_table, sale_table
from benchmarks.plotting.balancer_figures import side_by_side
from benchmarks.plotting.time_windows import TimeWindows
from benchmarks.suite.api import Case, Row
from benchmarks.suite.public_data import available_traces, trace_folder
from benchmarks.suite.user_methods import is_user_object, source_digest
from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.days import GENERATED, from_trace, generated

SEEDS = (0, 1, 2, 3, 4)
TRACES = {
    "nyc_taxi": "nyc_taxi.csv",
    "twitter_amzn": "Twitter_volume_AMZN.csv",
    "twitter_goog": "Twitter_volume_GOOG.csv",
}
METHODS = ("clairvoyant", "mpc", "feedback", "bisection", "primal-dual", "static", "slices", "mpc-real-time")
PLANNING_METHODS = ("mpc", "mpc-lbfgsb", "mpc-slsqp", "mpc-gradient", "mpc-cem", "mpc-shooting")
"""Measured only on the hours around the start of a sale, with one seed: the last take up to 0.1 s for a minute."""
SALE, SALE_MINUTES = "flash-sale", 180
REQUESTS = 360
QUICK_CALIBRATION = {"days": 1, "epochs": 5, "tuning": 10, "requests": 60}
"""Options of a small calibration that only has to work."""
Effort = tuple[tuple[str, Any], ...]
"""Options of a calibration as a hashable key."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS, methods: Sequence[str] | None = None) -> list[Case]:
    """Return every method on every day with every seed, then every way to plan on the hours around a sale.

    Args:
        quick: a small run.
        seeds: of the arrivals.
        methods: names of :data:`benchmarks.days.balancers.METHODS` or dotted paths of balancers, on whole days;
            ``None``: :data:`METHODS`.
    """
    if quick:
        chosen = METHODS[:3] if methods is None else methods
        return [balancing_case(method, seed, SALE, 20, quick=True) for seed in seeds for method in chosen]
    days = [*available_traces(TRACES), *GENERATED]
    names = METHODS if methods is None else methods
    planned = PLANNING_METHODS if methods is None else ()
    return [
        *(balancing_case(m, seed, day, 1440, quick=False) for day in days for seed in seeds for m in names),
        *(balancing_case(m, seeds[0], SALE, SALE_MINUTES, quick=False) for m in planned),
    ]


def check(case: Case) -> None:
    """Check that the method exists; a user's is imported.

    Raises:
        InputError: it does not.
    """
    check_methods([case.method])


def balancing_case(
    method: str, seed: int, day: str, minutes: int, *, quick: bool, settings: Mapping[str, Any] | None = None
) -> Case:
    """Return a case: a day, or its first minutes, under a balancer with its own ``settings``."""
    budget = {"requests": QUICK_CALIBRATION["requests"] if quick else REQUESTS, "minutes": minutes}
    config: dict[str, Any] = {"commissioning": QUICK_CALIBRATION if quick else {}, "settings": dict(settings or {})}
    if is_user_object(method):
        config["source"] = source_digest(method)
    return Case(method, seed, task=day, budget=budget, config=config)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Run a balancer through a day; the minutes of a whole day are saved in the folder as a Parquet file."""
    minutes, settings = case.budget["minutes"], case.config["settings"]
    effort: Effort = tuple(sorted(case.config["commissioning"].items()))
    evaluation = _evaluation(effort, case.task, case.seed, minutes, case.budget["requests"])
    frame, numbers = evaluation.run(case.method, settings)
    if not settings and minutes != SALE_MINUTES:
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(minutes_file(folder, case), index=False)
    return {**numbers, "commissioned": _calibration_report(evaluation.calibration)}


def minutes_file(folder: Path, case: Case) -> Path:
    """Return the path ``<day>-<method>-<seed>.parquet`` of the minutes of a day."""
    return folder / f"{case.task}-{case.method}-{case.seed}.parquet"


@cache
def _calibration(effort: Effort) -> Calibration:
    """Calibrate the methods of the default scenario on generated days, once in a process."""
    return Calibration(Engine.load("default"), **dict(effort))


@cache
def _pool(effort: Effort, requests: int) -> RequestPool:
    """Draw the test requests."""
    return _calibration(effort).engine.pool(requests, seed=JUDGE_SEED)


@lru_cache(maxsize=1)
def _evaluation(effort: Effort, day: str, seed: int, minutes: int, requests: int) -> BalancerEvaluation:
    """Prepare a day with its arrivals; the last one is kept."""
    calibration = _calibration(effort)
    if day in TRACES:
        scenario_day = from_trace(trace_folder() / TRACES[day], calibration.scenario, minutes)
    else:
        scenario_day = generated(day, calibration.scenario, seed, minutes)
    return BalancerEvaluation(calibration, scenario_day, _pool(effort, requests), seed)


def _calibration_report(calibration: Calibration) -> dict[str, Any]:
    """Return the tuned settings and the errors of the system model."""
    rate, margin = calibration.rate.tolist(), calibration.margin
    tuned = {"feedback": asdict(calibration.feedback), "rate": rate, "margin": margin}
    return {**tuned, "system_model": calibration.model.report}


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return every method on every day, in priced minutes and in all; then the ways to plan."""
    whole_days, sale_hours = split_rows(rows)
    for day in dict.fromkeys(row.case.task for row in whole_days):
        yield day_table(day, [row for row in whole_days if row.case.task == day])
    if sale_hours := [row for row in sale_hours if row.case.seed == sale_hours[0].case.seed]:  # the first run only
        yield sale_table("ways to plan, three hours of a sale, one seed", sale_hours)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw feedback, MPC and the clairvoyant side by side, a figure for each day whose minutes are in the folder."""
    paths, names = {}, ("feedback", "mpc", "clairvoyant")
    compared = [
        row for row in split_rows(rows)[0] if row.case.method in names and minutes_file(folder, row.case).is_file()
    ]
    for day in dict.fromkeys(row.case.task for row in compared):
        by_seed: dict[int, dict[str, Row]] = {}
        for row in compared:
            if row.case.task == day:
                by_seed.setdefault(row.case.seed, {})[row.case.method] = row
        complete = [by_seed[seed] for seed in sorted(by_seed) if set(by_seed[seed]) == set(names)]
        if not complete:  # side by side all must have met the same arrivals
            continue
        runs = {name: pd.read_parquet(minutes_file(folder, complete[0][name].case)) for name in names}
        numbers = {name: complete[0][name].numbers for name in names}
        path = folder / f"{day}.png"
        scenario = Scenario.load("default")
        side_by_side(runs, scenario.cluster_names, day, path, numbers, TimeWindows.of(scenario))
        paths[f"{day}: load against budget, λ below"] = path
    return paths


def split_rows(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows of whole days, and those of the hours around a sale."""
    sale_hours = [row for row in rows if row.case.budget["minutes"] == SALE_MINUTES]
    return [row for row in rows if row.case.budget["minutes"] != SALE_MINUTES], sale_hours
