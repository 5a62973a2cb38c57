"""Prices set by PPO, SAC, feedback and MPC inside Balancing-v0: return, μ and ν on the same days."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.priced_day import PricedDay
    from mpc import Balancer

SEEDS = (0, 1, 2)
DAYS = tuple(range(10_000, 10_005))
"""Seeds of the days that all are judged on; training draws its days from the training seeds."""
STEPS = {"PPO": 21_600, "SAC": 10_080}
"""Minutes of training: 15 days and 7 days."""
QUICK_STEPS = {"PPO": 240, "SAC": 240}
POOL = 60


def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Train each algorithm with each seed, judge all on the same days; what is done already is read from ``out``."""
    from benchmarks.curves import curve, figure
    from benchmarks.priced_day import PricedDay

    options: dict[str, Any] = {"pool_size": POOL, "minutes": 120} if quick else {"pool_size": POOL}
    days, steps = (DAYS[:1], QUICK_STEPS) if quick else (DAYS, STEPS)
    _check(seeds)
    out.mkdir(parents=True, exist_ok=True)
    runs = {algo: [_run_of(out, algo, seed, steps[algo], days, options) for seed in seeds] for algo in steps}
    balancers = _balancers(PricedDay(options), days, quick)
    curves: dict[str, Any] = {algo: curve([found["curve"] for found in each]) for algo, each in runs.items()}
    level = [float(np.mean([day["return"] for day in balancers["MPC"]["validation"]]))]
    shown = {"MPC": {"env_steps": [0], "returns": [level], "constant": True}, **curves}
    figure({"prices": shown}, {"prices": "a day of Balancing-v0 that was not trained on"}, out / "curve.png")
    return {
        "steps": steps,
        "days": list(days),
        "cpu_seconds": {algo: [found["cpu_seconds"] for found in each] for algo, each in runs.items()},
        "curves": curves,
        "judged": {
            **{name: [found["days"]] for name, found in balancers.items()},
            **{algo: [found["judged"] for found in each] for algo, each in runs.items()},
        },
    }


def _check(seeds: Sequence[int]) -> None:
    from benchmarks.model_free import VALIDATION_SEED
    from marca_env.errors import InputError

    known = {*DAYS, VALIDATION_SEED} & set(seeds)
    if known:
        raise InputError(f"--seeds: {min(known)} is the seed of a day that is judged; train with another")


def _run_of(
    out: Path, algo: str, seed: int, steps: int, days: Sequence[int], options: Mapping[str, Any]
) -> dict[str, Any]:
    """A training run and its judged days, from its file if it was finished before with the same settings."""
    from benchmarks.model_free import judged_day, trained
    from benchmarks.priced_day import PricedDay
    from benchmarks.progress import progress
    from marca_env.saving import write_json

    path, settings = out / f"{algo}-{seed}.json", {"steps": steps, "days": list(days), **options}
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["settings"] == settings:
            return kept["found"]
    day = PricedDay(options)
    with progress(f"{algo}, seed {seed}", steps) as advance:
        so_far = 0

        def report(now: int) -> None:
            nonlocal so_far
            advance(now - so_far)
            so_far = now

        found = trained(
            algo,
            seed,
            steps,
            judge=lambda act: [judged_day(day, k, act) for k in days],
            report=report,
            **options,
        )
    write_json(path, {"settings": settings, "found": found})
    return found


def _balancers(day: PricedDay, days: Sequence[int], quick: bool) -> dict[str, Any]:
    """Feedback and MPC on the judged days and the validation day."""
    from benchmarks.closed_loop import system_log, usual_prices
    from benchmarks.model_free import VALIDATION_SEED, judged_day
    from mpc import FeedbackBalancer, FeedbackSettings, MPCBalancer, SystemModel

    pool = day.base.pool
    log = system_log(pool, days=1 if quick else 3)
    model = SystemModel.fit(log, clusters=pool.scenario.cluster_names, epochs=5 if quick else 100)
    scale = tuple(usual_prices(pool, float(log["qps"].mean())).tolist())
    methods: dict[str, Balancer] = {
        "feedback": FeedbackBalancer(FeedbackSettings(scale=scale), price_max=day.base.price_max),
        "MPC": MPCBalancer(model, price_max=tuple(day.base.price_max.tolist())),
    }
    return {
        name: {
            "days": [judged_day(day, k, way) for k in days],
            "validation": [judged_day(day, VALIDATION_SEED, way)],
        }
        for name, way in methods.items()
    }


def tables(result: dict[str, Any]) -> Iterable[Table]:
    """Mean over days and seeds, with the spread over training seeds where there are several."""
    from rich.table import Table

    table = Table(title=f"{len(result['days'])} days of Balancing-v0; mean ± standard deviation over training seeds")
    for column in ("method", "minutes trained", "CPU s a run", "return", "μ by cluster", "ν by cluster"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for name, runs in result["judged"].items():
        returns = np.array([[day["return"] for day in days] for days in runs])  # (seeds, days)
        shares = {
            key: np.array([[day[key] for day in days] for days in runs]).mean((0, 1))
            for key in ("utilisation", "overutilisation")
        }
        spread = f" ± {returns.mean(1).std(ddof=1):.1f}" if len(returns) > 1 else ""
        table.add_row(
            name,
            f"{result['steps'][name]:,}" if name in result["steps"] else "",
            f"{np.mean(result['cpu_seconds'][name]):.0f}" if name in result["cpu_seconds"] else "",
            f"{returns.mean():.1f}{spread}",
            *(" / ".join(f"{x:.2%}" for x in share) for share in shares.values()),
        )
    yield table
