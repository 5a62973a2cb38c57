"""Prices set by PPO, SAC, tuned feedback and tuned MPC inside Balancing-v0: return, μ and ν on the same days."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from benchmarks.days.calibration import gain_grid, release_margin, two_passes
from benchmarks.days.telemetry import system_log, usual_prices
from benchmarks.experiments.balancing_rl.priced_day import PricedDay
from benchmarks.experiments.balancing_rl.rl_price_control import VALIDATION_SEED, judged_day, trained
from benchmarks.plotting.curves import curve, figure
from benchmarks.suite.api import Case, Row, rows_by_method
from marca_env.utils.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.experiments.balancing_rl.priced_day import PricedDay
    from mpc import Balancer

SEEDS = (0, 1, 2)
DAYS = tuple(range(10_000, 10_005))
"""Seeds of the days that all are judged on; training draws its days from the training seeds."""
BALANCERS = {"feedback": ("proportional", "integral", "margin"), "MPC": ("margin",)}
"""Balancer → its settings that are tuned, by return on the day of the learning curves."""
MARGINS = (0.0, 0.015, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3)
GAINS = gain_grid(MARGINS)
"""What is tuned over: wider margins than :mod:`benchmarks.days.calibration` has, because the reward charges for overload, and
learners may keep as far from the budget as they like."""
STEPS = {"PPO": 21_600, "SAC": 10_080}
"""Minutes of training: 15 days and 7 days."""
QUICK_STEPS = {"PPO": 240, "SAC": 240}
ENVIRONMENT: dict[str, Any] = {"pool_size": 60}
QUICK_ENVIRONMENT: dict[str, Any] = {**ENVIRONMENT, "minutes": 120}
COMMISSIONING = {"days": 3, "epochs": 100}
QUICK_COMMISSIONING = {"days": 1, "epochs": 5}
"""Of the log that the system model learns from, and of its fit."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """The two balancers, which have no seed of their own, then each algorithm with each seed.

    Raises:
        InputError: a seed whose day is judged, or balancers are tuned on.
    """
    _check(seeds)
    judged = {"days": list(DAYS[: 1 if quick else None]), "environment": QUICK_ENVIRONMENT if quick else ENVIRONMENT}
    effort = QUICK_COMMISSIONING if quick else COMMISSIONING
    steps = QUICK_STEPS if quick else STEPS
    return [
        *(Case(n, 0, config={**judged, "commissioning": effort, "tuned": _grid(n, quick)}) for n in BALANCERS),
        *(Case(algo, seed, budget={"minutes": steps[algo]}, config=judged) for algo in steps for seed in seeds),
    ]


def _grid(name: str, quick: bool) -> dict[str, Any]:
    """What a balancer is tuned over: ``settings`` of every candidate of the ``grid``, on the ``day`` of this seed."""
    grid = [list(gains) for gains in GAINS] if name == "feedback" else [[margin] for margin in MARGINS]
    return {"day": VALIDATION_SEED, "settings": list(BALANCERS[name]), "grid": grid[: 2 if quick else None]}


def _check(seeds: Sequence[int]) -> None:
    known = {*DAYS, VALIDATION_SEED} & set(seeds)
    if known:
        raise InputError(f"--seeds: {min(known)} is the seed of a day that is judged; train with another")


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """``days``: the judged ones; of what learns also its ``curve`` and ``cpu_seconds``, of the others the settings that
    were ``tuned`` and ``validation``, their return with these on the curve's day.
    """
    day = PricedDay(case.config["environment"])
    if case.method not in BALANCERS:
        return trained(
            case.method,
            case.seed,
            case.budget["minutes"],
            judge=lambda act: [judged_day(day, k, act) for k in case.config["days"]],
            **case.config["environment"],
        )
    build = _commissioned(case.method, day, **case.config["commissioning"])
    found, validation = _tuned(build, day, **case.config["tuned"])
    return {
        "days": [judged_day(day, k, build(**found)) for k in case.config["days"]],
        "validation": validation,
        "tuned": found,
    }


def _commissioned(name: str, day: PricedDay, days: int, epochs: int) -> Callable[..., Balancer]:
    """The balancer as a function of its :data:`BALANCERS` settings; a log, and a fit on it, serve all of them."""
    from mpc import FeedbackBalancer, FeedbackSettings, MPCBalancer, SystemModel

    pool, price_max = day.base.pool, day.base.price_max
    log, release = system_log(pool, days=days), release_margin(pool.scenario)
    if name == "MPC":
        model = SystemModel.fit(log, clusters=pool.scenario.cluster_names, epochs=epochs)
        return partial(MPCBalancer, model, price_max=tuple(price_max.tolist()), release_margin=release)
    scale = tuple(usual_prices(pool, float(log["qps"].mean())).tolist())
    settings = partial(FeedbackSettings, scale=scale, release_margin=release)
    return lambda **tuned: FeedbackBalancer(settings(**tuned), price_max=price_max)


def _tuned(
    build: Callable[..., Balancer],
    environment: PricedDay,
    day: int,
    settings: Sequence[str],
    grid: Sequence[Sequence[float]],
) -> tuple[dict[str, float], float]:
    """The settings, see :func:`benchmarks.days.calibration.two_passes`, that return most on a day, and that return.

    Args:
        build: the balancer of such settings.
        environment: the days are its.
        day: seed of the day.
        settings: names of what the candidates have.
        grid: candidates, each with a value for every name.
    """

    def named(candidate: tuple[float, ...]) -> dict[str, float]:
        return dict(zip(settings, candidate, strict=True))

    @cache
    def earned(candidate: tuple[float, ...]) -> float:
        return judged_day(environment, day, build(**named(candidate)))["return"]

    found = two_passes(lambda some: max(some, key=earned), [tuple(candidate) for candidate in grid])
    return named(found), earned(found)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Mean over days and seeds, with the spread over training seeds where there are several."""
    if not rows:
        return
    table = Table(
        title=f"{_days(rows)} of Balancing-v0; mean ± standard deviation over training seeds; "
        "feedback and MPC tuned on another day"
    )
    for column in ("method", "minutes trained", "CPU s a run", "return", "μ by cluster", "ν by cluster"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for name, mine in rows_by_method(rows).items():
        returns = np.array([[day["return"] for day in row.numbers["days"]] for row in mine])  # (seeds, days)
        shares = [
            np.array([[day[key] for day in row.numbers["days"]] for row in mine]).mean((0, 1))
            for key in ("utilisation", "overutilisation")
        ]
        spread = f" ± {returns.mean(1).std(ddof=1):.1f}" if len(returns) > 1 else ""
        learns = "cpu_seconds" in mine[0].numbers
        table.add_row(
            name,
            f"{mine[0].case.budget['minutes']:,}" if learns else "",
            f"{np.mean([row.numbers['cpu_seconds'] for row in mine]):.0f}" if learns else "",
            f"{returns.mean():.1f}{spread}",
            *(" / ".join(f"{x:.2%}" for x in share) for share in shares),
        )
    yield table


def _days(rows: Sequence[Row]) -> str:
    count = len(rows[0].case.config["days"])
    return f"{count} day{'s'[: count > 1]}"


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """``curve.png``: greedy return on a day that is neither trained on nor judged; what does not learn is a line, with
    the settings that are best on this day.
    """
    lines: dict[str, Any] = {}
    for name, mine in rows_by_method(rows).items():
        if name not in BALANCERS:
            lines[name] = curve([row.numbers["curve"] for row in mine])
        else:
            lines[name] = {"returns": [[mine[0].numbers["validation"]]], "constant": True}
    if not set(lines) - BALANCERS.keys():
        return {}
    path = folder / "curve.png"
    figure({"prices": lines}, {"prices": "a day of Balancing-v0 that was not trained on"}, path)
    return {"Return against minutes of training": path}
