"""Generated systems of any size, and the time of a plan and its objective as horizon and number of clusters grow."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.experiments.balancing_solvers.comparison import price_limits
from mpc import SystemModel
from mpc.model.conditions import Conditions
from mpc.planning.alternatives.registry import make_planning_method
from mpc.planning.objective import PlanStart
from mpc.planning.planning_method import PlannerSettings
from mpc.planning.predicted_loads import PredictedLoads


def compare_generated(horizon: int, clusters: int, epochs: int, repeats: int, seed: int) -> dict[str, Any]:
    """Compare SCP, SCP by the solver alone and L-BFGS-B on a generated system.

    Args:
        horizon: N, minutes.
        clusters: G.
        epochs: of the fit of the system model.
        repeats: states that are planned for.
        seed: of system and states.

    Returns:
        Medians of the CPU time of a plan, milliseconds; seconds to build the planner; mean iterations of SCP; mean
        objective of SCP minus that of L-BFGS-B.
    """
    model = generated_model(clusters, seed, epochs)
    settings, limits = PlannerSettings(horizon=horizon), price_limits(model)
    began = time.process_time()
    planner = make_planning_method("scp", clusters, settings, limits)
    build_seconds = time.process_time() - began
    rng = np.random.default_rng([seed, clusters, horizon])
    baseline = make_planning_method("lbfgsb", clusters, settings, limits)
    solver_alone = make_planning_method("scp", clusters, dataclasses.replace(settings, direct=False), limits)
    times: dict[Any, list[float]] = {method: [] for method in (planner, solver_alone, baseline)}
    iterations, excess = [], []
    for _ in range(repeats):
        state, results = generated_state(model, horizon, rng), []
        for method, milliseconds in times.items():
            began = time.process_time()
            results.append(method.plan(*state))
            milliseconds.append(1e3 * (time.process_time() - began))
        iterations.append(results[0].iterations)
        excess.append(results[0].objective - results[-1].objective)
    return {
        "horizon": horizon,
        "clusters": clusters,
        "build_seconds": build_seconds,
        "scp_cpu_ms": float(np.median(times[planner])),
        "solver_alone_cpu_ms": float(np.median(times[solver_alone])),
        "lbfgsb_cpu_ms": float(np.median(times[baseline])),
        "iterations": float(np.mean(iterations)),
        "objective_minus_lbfgsb": float(np.mean(excess)),
    }


def generated_model(n_clusters: int, seed: int, epochs: int) -> SystemModel:
    """Fit the model of a generated system where every price acts on every cluster, most on its own."""
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


def generated_state(model: SystemModel, horizon: int, rng: np.random.Generator) -> tuple[PredictedLoads, PlanStart]:
    """Draw a minute at random prices, 10 % off the budget, from which traffic changes at random."""
    size, minute = model.n_clusters, int(rng.integers(1440))
    prices = np.exp(rng.normal(1.0, 0.5, size))
    qps = 200 * np.exp(np.cumsum(rng.normal(0, 0.03, horizon + 1)))
    levels = np.zeros(size)
    last = Conditions(qps[0], np.array(minute), levels)
    forecast = Conditions(qps[1:], (minute + 1 + np.arange(horizon)) % 1440, np.broadcast_to(levels, (horizon, size)))
    load = model.predict(np.ones(size), last, prices, last, prices)
    budget = load * np.exp(rng.normal(0, 0.1, size))
    predicted = PredictedLoads(model.array_response().horizon(load, last, prices, forecast), forecast.qps, budget)
    return predicted, PlanStart(model.prices.to_log(prices), load / budget, np.full(size, 0.995))
