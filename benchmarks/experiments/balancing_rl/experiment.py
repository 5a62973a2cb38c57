"""Prices λ set by PPO, SAC, tuned feedback and tuned MPC inside Balancing-v0: return, μ and ν on the same days.

μ is the utilisation, ν the over-utilisation of the budgets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.experiments.balancing_rl.judged_days import VALIDATION_SEED, judge_day
from benchmarks.experiments.balancing_rl.priced_day import PricedDay
from benchmarks.experiments.balancing_rl.tuned_balancers import BALANCERS, balancer_builder, tune, tuning_grid
from benchmarks.plotting.curves import curve, figure
from benchmarks.suite.api import Case, Row, rows_by_method
from marca_env.utils.errors import InputError

SEEDS = (0, 1, 2)
DAYS = tuple(range(10_000, 10_005))
"""Seeds of the test days, the same for all methods; training draws its days from the training seeds."""
STEPS = {"PPO": 21_600, "SAC": 10_080}
"""Minutes of training: 15 days and 7 days."""
QUICK_STEPS = {"PPO": 240, "SAC": 240}
ENVIRONMENT: dict[str, Any] = {"pool_size": 60}
QUICK_ENVIRONMENT: dict[str, Any] = {**ENVIRONMENT, "minutes": 120}
CALIBRATION = {"days": 3, "epochs": 100}
QUICK_CALIBRATION = {"days": 1, "epochs": 5}
"""Days of the log that the system model is fitted to, and epochs of its fit."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return the two balancers, which have no seed of their own, then each algorithm with each seed.

    Raises:
        InputError: a seed is that of a test day or of a day on which balancers are tuned.
    """
    reserved = {*DAYS, VALIDATION_SEED} & set(seeds)
    if reserved:
        raise InputError(f"--seeds: {min(reserved)} is the seed of a test day or of the tuning day; use another")
    judged = {"days": list(DAYS[: 1 if quick else None]), "environment": QUICK_ENVIRONMENT if quick else ENVIRONMENT}
    effort = QUICK_CALIBRATION if quick else CALIBRATION
    steps = QUICK_STEPS if quick else STEPS
    return [
        *(Case(n, 0, config={**judged, "commissioning": effort, "tuned": tuning_grid(n, quick)}) for n in BALANCERS),
        *(Case(algo, seed, budget={"minutes": steps[algo]}, config=judged) for algo in steps for seed in seeds),
    ]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train an algorithm or tune a balancer, and evaluate it.

    Returns:
        ``days``: numbers of the test days; of an algorithm also its ``curve`` and ``cpu_seconds``, of a balancer the
        ``tuned`` settings and ``validation``, its return with them on the day of the curve.
    """
    day = PricedDay(case.config["environment"])
    if case.method not in BALANCERS:
        from benchmarks.experiments.balancing_rl.rl_price_control import train_price_control

        return train_price_control(
            case.method,
            case.seed,
            case.budget["minutes"],
            judge=lambda act: [judge_day(day, k, act) for k in case.config["days"]],
            **case.config["environment"],
        )
    build = balancer_builder(case.method, day, **case.config["commissioning"])
    tuned, validation = tune(build, day, **case.config["tuned"])
    days = [judge_day(day, k, build(**tuned)) for k in case.config["days"]]
    return {"days": days, "validation": validation, "tuned": tuned}


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return means over days and seeds, with the spread over training seeds if there are several."""
    if not rows:
        return
    table = Table(
        title=f"{_days(rows)} of Balancing-v0; mean ± standard deviation over training seeds; "
        "feedback and MPC tuned on another day"
    )
    for column in ("method", "minutes trained", "CPU s a run", "return", "μ by cluster", "ν by cluster"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for name, group in rows_by_method(rows).items():
        returns = np.array([[day["return"] for day in row.numbers["days"]] for row in group])  # (seeds, days)
        shares = [
            np.array([[day[key] for day in row.numbers["days"]] for row in group]).mean((0, 1))
            for key in ("utilisation", "overutilisation")
        ]
        spread = f" ± {returns.mean(1).std(ddof=1):.1f}" if len(returns) > 1 else ""
        learns = "cpu_seconds" in group[0].numbers
        table.add_row(
            name,
            f"{group[0].case.budget['minutes']:,}" if learns else "",
            f"{np.mean([row.numbers['cpu_seconds'] for row in group]):.0f}" if learns else "",
            f"{returns.mean():.1f}{spread}",
            *(" / ".join(f"{x:.2%}" for x in share) for share in shares),
        )
    yield table


def _days(rows: Sequence[Row]) -> str:
    count = len(rows[0].case.config["days"])
    return f"{count} day{'s'[: count > 1]}"


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw ``curve.png``: greedy return on a day that is used in neither training nor tests.

    A balancer is a horizontal line: its return with the settings that are best on this day.
    """
    lines: dict[str, Any] = {}
    for name, group in rows_by_method(rows).items():
        if name not in BALANCERS:
            lines[name] = curve([row.numbers["curve"] for row in group])
        else:
            lines[name] = {"returns": [[group[0].numbers["validation"]]], "constant": True}
    if not set(lines) - BALANCERS.keys():
        return {}
    path = folder / "curve.png"
    figure({"prices": lines}, {"prices": "a day of Balancing-v0 that was not trained on"}, path)
    return {"Return against minutes of training": path}
