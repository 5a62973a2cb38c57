"""Ways to minimise Eq. 17 on the same states and model: objective reached, time per control step, growth with size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

    from marca_env.serving import RequestPool
    from mpc import SystemModel
    from mpc.planner import PlannerSettings

SEEDS = (0,)
STATES, READING_STATES, QUICK_STATES = 200, 60, 12
HORIZON = 10
STARTS = 6
BEST = f"L-BFGS-B, {STARTS} starts"
SERIAL = "shooting, 100, one by one"
SCP = "SCP"
HORIZONS, CLUSTERS = (5, 10, 20, 40, 60), (1, 2, 5, 10, 20, 50)
CLOSE = 1.01, 1e-6
"""A plan is as good as the best if its objective is within 1 %, or within SCP's tolerance of 1e-6 budgets squared."""


def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Collect states from the closed loop, solve each with every method in turn, then let the problem grow."""
    from benchmarks.closed_loop import commissioned, shipped_pool
    from mpc.planner import PlannerSettings

    pool = shipped_pool(120 if quick else 240)
    model = commissioned(pool, seed=seeds[0], epochs=20 if quick else 150)
    settings = PlannerSettings(horizon=HORIZON)
    problems = collect(pool, model, QUICK_STATES if quick else STATES, seeds[0], settings)
    return {
        "states": len(problems),
        "reading_states": min(len(problems), READING_STATES),
        "solvers": compare(problems, solvers(model, settings, seeds[0])),
        "readings": {
            name: compare(
                problems[:READING_STATES], _pair(model, PlannerSettings(horizon=HORIZON, **changes), seeds[0])
            )
            for name, changes in (
                ("damping by the last load", {"damping": "measured"}),
                ("critical threshold 44/46", {"threshold": 44 / 46}),
            )
        },
        "parts": parts(problems, model, settings),
        "horizons": [grown(n, 2, quick) for n in (HORIZONS[:2] if quick else HORIZONS)],
        "clusters": [grown(HORIZON, g, quick) for g in (CLUSTERS[:3] if quick else CLUSTERS)],
        "matmul_seconds": _matmul(),
    }


def solvers(model: SystemModel, settings: PlannerSettings, seed: int) -> dict[str, Any]:
    """Every method by the name that the table shows."""
    import dataclasses

    from mpc.search import planning_method

    top = _top(model)

    def made(name: str, s: PlannerSettings = settings, **options: Any) -> Any:
        return planning_method(name, model.n_clusters, s, top, seed=seed, **options)

    return {
        SCP: made("scp"),
        "SCP, OSQP": made("scp", dataclasses.replace(settings, solver="OSQP")),
        "SCP, real-time": made("scp", dataclasses.replace(settings, mode="real_time")),
        BEST: made("lbfgsb", starts=STARTS),
        "L-BFGS-B": made("lbfgsb"),
        "SLSQP": made("slsqp"),
        "projected gradient": made("gradient"),
        "cross-entropy": made("cem"),
        "shooting, 100, at once": made("shooting"),
        SERIAL: made("shooting", batched=False),
        "shooting, 100, whole range": made("shooting", batched=False, spread=None),
        "shooting, 1,000, at once": made("shooting", samples=1_000),
    }


def _pair(model: SystemModel, settings: PlannerSettings, seed: int) -> dict[str, Any]:
    found = solvers(model, settings, seed)
    return {name: found[name] for name in (SCP, "SCP, real-time", BEST, "L-BFGS-B", "SLSQP")}


def _top(model: SystemModel) -> np.ndarray:
    return model.prices.to_log(4.0 * np.maximum(model.price_limit, model.prices.scale))


def collect(
    pool: RequestPool, model: SystemModel, n: int, seed: int, settings: PlannerSettings
) -> list[tuple[Any, Any, Any]]:
    """``n`` problems as a balancer met them, drawn from a generated day and a flash sale: (loads, now, nominal)."""
    from benchmarks.closed_loop import Plant, flash_sale, usual_prices
    from marca_env.workload import daily_traffic
    from mpc import MPCBalancer

    met: list[tuple[Any, Any, Any]] = []
    days = daily_traffic(pool.scenario, np.random.default_rng([seed, 21])), flash_sale(pool, seed)
    for traffic in days:
        balancer = MPCBalancer(model, horizon=settings.horizon)
        balancer.planner = _Recorder(balancer.planner, met)  # type: ignore[assignment]
        plant = Plant(pool, traffic.clipped(1440 if n >= STATES else 760), seed)
        prices = usual_prices(pool, float(traffic.qps[0]))
        observation = plant.start(prices)
        for _ in range(len(plant.traffic)):
            prices = balancer.update(observation)
            _, observation = plant.step(prices)
    chosen = np.random.default_rng([seed, 22]).choice(len(met), min(n, len(met)), replace=False)
    return [met[k] for k in chosen]


class _Recorder:
    def __init__(self, inner: Any, met: list[tuple[Any, Any, Any]]) -> None:
        self._inner, self._met = inner, met

    def plan(self, predicted: Any, now: Any, nominal: Any = None, deadline: Any = None) -> Any:
        self._met.append((predicted, now, nominal))
        return self._inner.plan(predicted, now, nominal, deadline)


def compare(problems: list[tuple[Any, Any, Any]], methods: dict[str, Any]) -> dict[str, Any]:
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


def parts(problems: list[tuple[Any, Any, Any]], model: SystemModel, settings: PlannerSettings) -> dict[str, float]:
    """Median CPU time, milliseconds, of what a step is made of, beside the ways not taken."""
    import torch
    from torch.func import jacrev, jvp, vmap

    from mpc.conditions import Conditions
    from mpc.planner import Planner

    planner, (predicted, now, _) = Planner(model.n_clusters, settings, _top(model)), problems[0]
    u = np.tile(now.in_force, (settings.horizon, 1))
    last = Conditions(np.array(100.0), np.array(600), np.zeros(model.n_clusters))
    point, tensor = predicted.linearised(u), torch.tensor(u)
    directions = torch.eye(u.shape[1], dtype=torch.float64)

    def backward_passes() -> None:
        variable = tensor.clone().requires_grad_(True)
        loads = predicted.tensor(variable)
        for g in range(u.shape[1]):
            torch.autograd.grad(loads[:, g].sum(), variable, retain_graph=True)

    def convex() -> None:
        planner.problem.solve(
            point.loads, point.slopes, u, now.load, low=u - 1, high=u + 1, damped=point.loads > 1, target=now.target
        )

    def through_cvxpy() -> None:
        kept, planner.problem.program = planner.problem.program, None
        convex()
        planner.problem.program = kept

    timed: dict[str, Callable[[], Any]] = {
        "loads and slopes": lambda: predicted.linearised(u),
        "slopes by backward passes": backward_passes,
        "slopes by torch.func.jvp under vmap": lambda: vmap(
            lambda d: jvp(predicted.tensor, (tensor,), (d.expand_as(tensor),))[1]
        )(directions),
        "slopes by torch.func.jacrev": lambda: jacrev(predicted.tensor)(tensor),
        "convex program, compiled": convex,
        "convex program, Problem.solve": through_cvxpy,
        "100 loads at once": lambda: predicted.loads(np.broadcast_to(u, (100, *u.shape))),
        "100 loads one by one": lambda: [predicted.loads(u) for _ in range(100)],
        "a minute of one sequence, SystemModel.predict": lambda: model.predict(
            now.load, last, model.prices.scale, last, model.prices.scale
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in timed}
    for repeat in range(31):
        for name, work in timed.items():
            began = time.process_time()
            work()
            if repeat > 0:
                found[name].append(1e3 * (time.process_time() - began))
    return {name: float(np.median(times)) for name, times in found.items()}


def grown(horizon: int, n_clusters: int, quick: bool, seed: int = 0) -> dict[str, Any]:
    """A generated system of that size: CPU time of a plan and what it reaches beside L-BFGS-B."""
    from mpc.planner import PlannerSettings
    from mpc.search import planning_method

    model = generated_model(n_clusters, seed, epochs=3 if quick else 12)
    settings, top = PlannerSettings(horizon=horizon), _top(model)
    began = time.process_time()
    planner = planning_method("scp", n_clusters, settings, top)
    built = time.process_time() - began
    rng, repeats = np.random.default_rng([seed, n_clusters, horizon]), 3 if quick or n_clusters >= 20 else 10
    rival = planning_method("lbfgsb", n_clusters, settings, top)
    times: list[float] = []
    rivals: list[float] = []
    rounds, excess = [], []
    for _ in range(repeats):
        predicted, now = generated_problem(model, horizon, rng)
        began = time.process_time()
        result = planner.plan(predicted, now)
        middle = time.process_time()
        other = rival.plan(predicted, now)
        times.append(middle - began)
        rivals.append(time.process_time() - middle)
        rounds.append(result.iterations)
        excess.append(result.objective - other.objective)
    return {
        "horizon": horizon,
        "clusters": n_clusters,
        "build_seconds": built,
        "scp_cpu_ms": 1e3 * float(np.median(times)),
        "lbfgsb_cpu_ms": 1e3 * float(np.median(rivals)),
        "iterations": float(np.mean(rounds)),
        "objective_minus_lbfgsb": float(np.mean(excess)),
    }


def generated_model(n_clusters: int, seed: int, epochs: int) -> SystemModel:
    """A system model of a generated system in which every price acts on every cluster, its own most."""
    import pandas as pd

    from mpc import SystemModel

    rng, n = np.random.default_rng([seed, n_clusters]), 2 * 1440
    own, others = rng.uniform(0.3, 0.9, n_clusters), rng.uniform(0.0, 0.2, (n_clusters, n_clusters)) / n_clusters
    prices = np.exp(rng.normal(1.0, 1.0, (n, n_clusters)))
    u, minute = np.log1p(prices / 2), np.arange(n) % 1440
    logs = np.log(0.01) - own * u - u @ others.T + 0.1 * np.sin(2 * np.pi * minute / 1440)[:, None]
    qps = 200 + 100 * np.sin(2 * np.pi * minute / 1440)
    columns = {"day": np.arange(n) // 1440, "minute": minute, "qps": qps}
    for g in range(n_clusters):
        columns[f"load_c{g}"] = qps * np.exp(logs[:, g] + rng.normal(0, 0.01, n))
        columns[f"price_c{g}"], columns[f"degradation_c{g}"] = prices[:, g], np.zeros(n)
    return SystemModel.fit(pd.DataFrame(columns), epochs=epochs, seed=seed, horizons=(1,))


def generated_problem(model: SystemModel, horizon: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """A minute at random prices, 10 % off the budget, with traffic that wanders from there."""
    from mpc.conditions import Conditions
    from mpc.objective import Now
    from mpc.predicted import PredictedLoads

    size, minute = model.n_clusters, int(rng.integers(1440))
    prices = np.exp(rng.normal(1.0, 0.5, size))
    qps = 200 * np.exp(np.cumsum(rng.normal(0, 0.03, horizon + 1)))
    levels = np.zeros(size)
    last = Conditions(qps[0], np.array(minute), levels)
    coming = Conditions(qps[1:], (minute + 1 + np.arange(horizon)) % 1440, np.broadcast_to(levels, (horizon, size)))
    load = model.predict(np.ones(size), last, prices, last, prices)
    budget = load * np.exp(rng.normal(0, 0.1, size))
    predicted = PredictedLoads(model.frozen().horizon(load, last, prices, coming), coming.qps, budget)
    return predicted, Now(model.prices.to_log(prices), load / budget, np.full(size, 0.995))


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
    from rich.table import Table

    readings = ((name, rows, result["reading_states"]) for name, rows in result["readings"].items())
    for title, rows, states in (("Eq. 17", result["solvers"], result["states"]), *readings):
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
    for column in ("N", "clusters", "SCP CPU ms", "L-BFGS-B CPU ms", "J − J of L-BFGS-B", "iterations", "built in s"):
        growth.add_column(column, justify="right")
    for row in (*result["horizons"], *result["clusters"]):
        growth.add_row(
            str(row["horizon"]),
            str(row["clusters"]),
            f"{row['scp_cpu_ms']:.1f}",
            f"{row['lbfgsb_cpu_ms']:.1f}",
            f"{row['objective_minus_lbfgsb']:+.2e}",
            f"{row['iterations']:.1f}",
            f"{row['build_seconds']:.2f}",
        )
    yield growth
