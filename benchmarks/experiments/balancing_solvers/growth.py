"""Time of a plan and its objective on generated systems, as horizon and number of clusters grow."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from benchmarks.experiments.balancing_solvers.comparison import price_limits
from benchmarks.experiments.balancing_solvers.generated_system import GeneratedSystem
from mpc.planning.alternatives.registry import make_planning_method
from mpc.planning.planning_method import PlannerSettings

OFF = 0.1
"""Standard deviation of the log of load over budget."""


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
    system = GeneratedSystem(clusters, seed)
    model = system.fit(epochs)
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
        state, results = system.state(model, horizon, OFF, rng), []
        for method, milliseconds in times.items():
            began = time.process_time()
            results.append(method.plan(state.predicted, state.start))
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
