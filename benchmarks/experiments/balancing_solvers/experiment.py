"""Ways to minimise Eq. 17 on the same states and model: objective reached, time per control step, growth with size."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from benchmarks.days.telemetry import shipped_pool, system_log
from benchmarks.experiments.balancing_solvers.solver_parts import parts
from benchmarks.experiments.balancing_solvers.solver_states import collect, generated_model, generated_problem
from mpc import SystemModel

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.experiments.balancing_solvers.solver_states import State
    from mpc import SystemModel
    from mpc.planning.scp import PlannerSettings

SEEDS = (0,)
STATES, READING_STATES, PUBLISHED_STATES, QUICK_STATES = 200, 30, 20, 6
HORIZON = 10
STARTS = 6
BEST = f"L-BFGS-B, {STARTS} starts"
AT_ONCE, SERIAL = "shooting, 100, at once", "shooting, 100, one by one"
PUBLISHED = "shooting, 100, as published"
SCP, SOLVER_ALONE = "SCP", "SCP, every program to the solver"
HORIZONS, CLUSTERS = (5, 10, 20, 40, 60), (1, 2, 5, 10, 20, 50)
CLOSE = 1.01, 1e-6
"""A plan is as good as the best if its objective is within 1 %, or within SCP's tolerance of 1e-6 budgets squared."""


def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Collect states from the closed loop, solve each with every method in turn, then let the problem grow."""
    from benchmarks.experiments.balancing_solvers.published_shooting import WideNetwork
    from mpc.planning.scp import PlannerSettings

    pool, seed = shipped_pool(120 if quick else 240), seeds[0]
    log = system_log(pool, days=2 if quick else 4, seed=seed)
    model = SystemModel.fit(log, clusters=pool.scenario.cluster_names, seed=seed, epochs=20 if quick else 150)
    network, settings = WideNetwork(log, model, seed), PlannerSettings(horizon=HORIZON)
    problems = collect(pool, model, QUICK_STATES if quick else STATES, seed, settings)
    return {
        "states": len(problems),
        "reading_states": min(len(problems), READING_STATES),
        "solvers": compare(problems, solvers(model, settings, seed)),
        "readings": {
            name: compare(problems[:READING_STATES], _pair(model, PlannerSettings(horizon=HORIZON, **changes), seed))
            for name, changes in (
                ("damping by the last load", {"damping": "measured"}),
                ("critical threshold 44/46", {"threshold": 44 / 46}),
            )
        },
        "shooting_states": min(len(problems), PUBLISHED_STATES),
        "shooting": compare(problems[:PUBLISHED_STATES], _shootings(model, network, settings, seed)),
        "network_error": network.error.tolist(),
        "parts": parts(problems[0], model, settings, _top(model)),
        "horizons": [grown(n, 2, quick) for n in (HORIZONS[:2] if quick else HORIZONS)],
        "clusters": [grown(HORIZON, g, quick) for g in (CLUSTERS[:3] if quick else CLUSTERS)],
        "matmul_seconds": _matmul(),
    }


def solvers(model: SystemModel, settings: PlannerSettings, seed: int) -> dict[str, Any]:
    """Every method by the name that the table shows."""
    from mpc.planning.alternatives.by_name import planning_method

    top = _top(model)

    def made(name: str, s: PlannerSettings = settings, **options: Any) -> Any:
        return planning_method(name, model.n_clusters, s, top, seed=seed, **options)

    return {
        SCP: made("scp"),
        SOLVER_ALONE: made("scp", dataclasses.replace(settings, direct=False)),
        "SCP, every program to OSQP": made("scp", dataclasses.replace(settings, direct=False, solver="OSQP")),
        "SCP, real-time": made("scp", dataclasses.replace(settings, mode="real_time")),
        BEST: made("lbfgsb", starts=STARTS),
        "L-BFGS-B": made("lbfgsb"),
        "SLSQP": made("slsqp"),
        "projected gradient": made("gradient"),
        "cross-entropy": made("cem"),
        AT_ONCE: made("shooting"),
        SERIAL: made("shooting", batched=False),
        "shooting, 100, whole range": made("shooting", batched=False, spread=None),
        "shooting, 1,000, at once": made("shooting", samples=1_000),
    }


def _pair(model: SystemModel, settings: PlannerSettings, seed: int) -> dict[str, Any]:
    found = solvers(model, settings, seed)
    return {name: found[name] for name in (SCP, "SCP, real-time", BEST, "L-BFGS-B", "SLSQP")}


def _shootings(model: SystemModel, network: Any, settings: PlannerSettings, seed: int) -> dict[str, Any]:
    """SCP beside 100-sample shooting: all sequences at once, one by one, and through the published network."""
    from benchmarks.experiments.balancing_solvers.published_shooting import PublishedShooting

    found = solvers(model, settings, seed)
    published = PublishedShooting(network, model.n_clusters, settings, _top(model), seed=seed)
    return {**{name: found[name] for name in (SCP, AT_ONCE, SERIAL)}, PUBLISHED: published}


def _top(model: SystemModel) -> np.ndarray:
    return model.prices.to_log(4.0 * np.maximum(model.price_limit, model.prices.scale))


def compare(problems: list[State], methods: dict[str, Any]) -> dict[str, Any]:
    """Every method on every problem, interleaved, starting with another method each time."""
    names = list(methods)
    wall, cpu = ({name: np.empty(len(problems)) for name in names} for _ in range(2))
    value, done, rounds = ({name: np.empty(len(problems)) for name in names} for _ in range(3))
    for name in names:  # caches and first-use imports are not the problem's
        methods[name].plan(*problems[0])
    for k, problem in enumerate(problems):
        for j in range(len(names)):
            name = names[(j + k) % len(names)]
            began, busy = time.perf_counter(), time.process_time()
            result = methods[name].plan(*problem)
            wall[name][k], cpu[name][k] = time.perf_counter() - began, time.process_time() - busy
            value[name][k], done[name][k], rounds[name][k] = result.objective, result.converged, result.iterations
    best = value[BEST] if BEST in value else np.min(list(value.values()), axis=0)
    return {
        name: {
            "objective": float(value[name].mean()),
            "excess": float(value[name].sum() / best.sum() - 1),
            "as_good": float((value[name] <= CLOSE[0] * best + CLOSE[1]).mean()),
            "better": float((best > CLOSE[0] * value[name] + CLOSE[1]).mean()),
            "wall_ms": _quantiles(wall[name]),
            "cpu_ms": _quantiles(cpu[name]),
            "iterations": float(rounds[name].mean()),
            "converged": float(done[name].mean()),
        }
        for name in names
    }


def _quantiles(seconds: np.ndarray) -> list[float]:
    """Median, 10 % and 90 % quantile, milliseconds."""
    return (1e3 * np.quantile(seconds, [0.5, 0.1, 0.9])).tolist()


def grown(horizon: int, n_clusters: int, quick: bool, seed: int = 0) -> dict[str, Any]:
    """A generated system of that size: CPU time of a plan and what it reaches beside L-BFGS-B."""
    from mpc.planning.alternatives.by_name import planning_method
    from mpc.planning.scp import PlannerSettings

    model = generated_model(n_clusters, seed, epochs=3 if quick else 12)
    settings, top = PlannerSettings(horizon=horizon), _top(model)
    began = time.process_time()
    planner = planning_method("scp", n_clusters, settings, top)
    built = time.process_time() - began
    rng, repeats = np.random.default_rng([seed, n_clusters, horizon]), 3 if quick or n_clusters >= 20 else 10
    rival = planning_method("lbfgsb", n_clusters, settings, top)
    alone = planning_method("scp", n_clusters, dataclasses.replace(settings, direct=False), top)
    times: dict[Any, list[float]] = {method: [] for method in (planner, alone, rival)}
    rounds, excess = [], []
    for _ in range(repeats):
        state, found = generated_problem(model, horizon, rng), []
        for method, spent in times.items():
            began = time.process_time()
            found.append(method.plan(*state))
            spent.append(1e3 * (time.process_time() - began))
        rounds.append(found[0].iterations)
        excess.append(found[0].objective - found[-1].objective)
    return {
        "horizon": horizon,
        "clusters": n_clusters,
        "build_seconds": built,
        "scp_cpu_ms": float(np.median(times[planner])),
        "solver_alone_cpu_ms": float(np.median(times[alone])),
        "lbfgsb_cpu_ms": float(np.median(times[rival])),
        "iterations": float(np.mean(rounds)),
        "objective_minus_lbfgsb": float(np.mean(excess)),
    }


def _matmul() -> float:
    """Seconds of a 500 × 500 product in double precision: what this machine gave at the time."""
    a = np.ones((500, 500))
    times = []
    for _ in range(9):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def tables(result: dict[str, Any]) -> Iterable[Table]:
    """Objective and time of every method, then growth."""

    readings = ((name, rows, result["reading_states"]) for name, rows in result["readings"].items())
    shooting = "100-sample random shooting", result["shooting"], result["shooting_states"]
    for title, rows, states in (("Eq. 17", result["solvers"], result["states"]), *readings, shooting):
        table = Table(title=f"{title}: {states} states, N = {HORIZON}, two clusters")
        for column in ("method", "J over best", "as good", "better", "CPU ms [10 %, 90 %]", "wall ms", "× SCP", "its"):
            table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
        for name, row in rows.items():
            middle, low, high = row["cpu_ms"]
            table.add_row(
                name,
                f"{row['excess']:+.2%}",
                f"{row['as_good']:.0%}",
                f"{row['better']:.0%}",
                f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                f"{row['wall_ms'][0]:.2f}",
                f"{middle / rows[SCP]['cpu_ms'][0]:.2f}",
                f"{row['iterations']:.1f}",
            )
        yield table
    step = Table(title="what a step is made of (median CPU time)")
    step.add_column("part")
    step.add_column("ms", justify="right")
    for name, value in result["parts"].items():
        step.add_row(name, f"{value:.3f}")
    yield step
    growth = Table(title="growth")
    for column in (
        "N",
        "clusters",
        "SCP CPU ms",
        "solver alone",
        "L-BFGS-B",
        "J − J of L-BFGS-B",
        "iterations",
        "built in s",
    ):
        growth.add_column(column, justify="right")
    for row in (*result["horizons"], *result["clusters"]):
        growth.add_row(
            str(row["horizon"]),
            str(row["clusters"]),
            f"{row['scp_cpu_ms']:.1f}",
            f"{row['solver_alone_cpu_ms']:.1f}",
            f"{row['lbfgsb_cpu_ms']:.1f}",
            f"{row['objective_minus_lbfgsb']:+.2e}",
            f"{row['iterations']:.1f}",
            f"{row['build_seconds']:.2f}",
        )
    yield growth
