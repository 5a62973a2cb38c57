"""Days of traffic under five allocation policies: uplift over static, significance, shares of the clairvoyant bound.

With the same seed all policies meet the same arrivals of the same requests. Each seed also trains the learners and
calibrates the balancers again, so that intervals over seeds cover the training. Learners, gains and system models come
from generated days; only the MPC's forecast uses the past of a trace. The public traces are read from
:func:`benchmarks.suite.public_data.trace_folder`; without them only the other days are measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.days.artefacts import true_pool
from benchmarks.days.balancer_evaluation import score
from benchmarks.days.policies import POLICIES, check_policies
from benchmarks.days.trace_days import trace_day
from benchmarks.experiments.online import report_figures, report_tables
from benchmarks.experiments.online.calibrated_policies import calibrated_policy
from benchmarks.suite.api import Case, Row
from benchmarks.suite.public_data import available_traces, trace_folder
from benchmarks.suite.user_methods import is_user_object, source_digest
from marca_env.logs.schema import OUTCOMES
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.day_simulator import clairvoyant_bound, replay
from marca_env.traffic.days import generated
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.workload import Traffic, read_trace

SEEDS = (0, 1, 2, 3, 4)
BOUND = "clairvoyant bound"
EMBEDDED, GENERATED = "embedded day", ("smooth", "flash-sale")
TRACE_DAYS = {
    "nyc_taxi 2014-08-02": ("nyc_taxi.csv", "2014-08-02"),
    "nyc_taxi 2014-11-12": ("nyc_taxi.csv", "2014-11-12"),
    "Twitter AMZN 2015-03-18": ("Twitter_volume_AMZN.csv", "2015-03-18"),
    "Twitter GOOG 2015-04-08": ("Twitter_volume_GOOG.csv", "2015-04-08"),
}
"""A Saturday and Wednesdays, fixed in advance; the balancing experiment replays the second week of each trace."""
JUDGE_SEED = 30_000
"""Seed of the test requests of seed 0; no log and no model has seen them."""
BUDGET: dict[str, Any] = {"minutes": 1440, "requests": 600, "iterations": 45, "episodes": 2000}
QUICK_BUDGET: dict[str, Any] = {"minutes": 15, "requests": 40, "iterations": 2, "episodes": 100}
CALIBRATION: dict[str, Any] = {"sample": 300, "days": 4, "tuning": 1440}
QUICK_CALIBRATION: dict[str, Any] = {"sample": 30, "days": 1, "tuning": 20}
"""Requests of the calibration, days of the system model's log, and minutes of the days of tuning."""


def cases(*, quick: bool, seeds: Sequence[int], methods: Sequence[str] | None = None) -> list[Case]:
    """Return every policy, and the bound, on every available day.

    Args:
        quick: a small run.
        seeds: of training, calibration and arrivals.
        methods: names of :data:`benchmarks.days.policies.POLICIES` or dotted paths of policies, measured beside the
            bound; ``None``: all.
    """
    shown = tuple(p for p in POLICIES if not quick or p in ("static", "dcaf", "marca-mpc"))
    names = (BOUND, *(shown if methods is None else (m for m in methods if m != BOUND)))
    budget, effort = (QUICK_BUDGET, QUICK_CALIBRATION) if quick else (BUDGET, CALIBRATION)
    files = {day: file for day, (file, _) in TRACE_DAYS.items()}
    days = ("smooth",) if quick else (EMBEDDED, *available_traces(files), *GENERATED)
    return [
        Case(method, seed, task=day, budget=budget, config=effort | _source(method))
        for seed in seeds
        for day in days
        for method in names
    ]


def _source(method: str) -> dict[str, str]:
    """Return what identifies the code of a user's policy."""
    return {"source": source_digest(method)} if is_user_object(method) else {}


def check(case: Case) -> None:
    """Check that the policy exists; a user's is imported.

    Raises:
        InputError: it does not.
    """
    if case.method != BOUND:
        check_policies([case.method])


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Run a policy through a day.

    Returns:
        The day's sums (revenue in currency), CTR (clicks per impression), ROI (GMV over revenue), and μ and ν
        (utilisation and over-utilisation) by cluster and together; of the bound only the revenue.
    """
    scenario = Scenario.load(case.scenario)
    traffic = _traffic(case)
    pool = true_pool(scenario, int(case.budget["requests"]), JUDGE_SEED + case.seed)
    counts = draw_arrivals(pool, traffic, case.seed)
    if case.method == BOUND:
        return {"revenue": clairvoyant_bound(pool, counts)}
    minutes = replay(calibrated_policy(case, folder, pool.states, traffic), pool, traffic, counts)
    use = score(minutes, scenario.cluster_names, np.ones((len(minutes), len(scenario.clusters))))
    sums = {name: float(minutes[name].sum()) for name in OUTCOMES}
    return {
        **sums,
        "ctr": sums["clicks"] / sums["impressions"],
        "roi": sums["gmv"] / sums["revenue"],
        **{name: use[name] for name in ("mu", "nu", "degraded", "lost")},
    }


def _traffic(case: Case) -> Traffic:
    scenario, minutes = Scenario.load(case.scenario), int(case.budget["minutes"])
    if case.task == EMBEDDED:
        return trace_day(None, scenario, minutes).traffic
    if case.task in TRACE_DAYS:
        file, date = TRACE_DAYS[case.task]
        return read_trace(trace_folder() / file, scenario, minutes, date)
    return generated(case.task, scenario, case.seed, minutes).traffic


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return uplifts over static beside the published ones, their significance, every day, and the use of budgets."""
    return report_tables.tables(rows, BOUND)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw the revenue over static of every policy on every day, and performance profiles."""
    return report_figures.figures(rows, folder, BOUND)
