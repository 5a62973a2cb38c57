"""Methods that minimise Eq. 17 (arXiv 2512.24325), run in turn on the same states."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.experiments.balancing_solvers.published_shooting import PublishedShooting, WideNetwork
from benchmarks.experiments.balancing_solvers.solver_states import State
from mpc import SystemModel
from mpc.planning.alternatives.registry import make_planning_method
from mpc.planning.planning_method import PlannerSettings

STARTS = 6
BEST = f"L-BFGS-B, {STARTS} starts"
"""The method that stands for the best possible plan."""
AT_ONCE, SERIAL = "shooting, 100, at once", "shooting, 100, one by one"
PUBLISHED = "shooting, 100, as published"
SCP, SOLVER_ALONE = "SCP", "SCP, every program to the solver"
CLOSE = 1.01, 1e-6
"""A plan is as good as the best if its objective is within 1 %, or within SCP's tolerance of 1e-6 budgets squared."""


def all_methods(model: SystemModel, settings: PlannerSettings, seed: int) -> dict[str, Any]:
    """Return every method by the name that the table shows."""
    limits = price_limits(model)

    def build(name: str, s: PlannerSettings = settings, **options: Any) -> Any:
        return make_planning_method(name, model.n_clusters, s, limits, seed=seed, **options)

    return {
        SCP: build("scp"),
        SOLVER_ALONE: build("scp", dataclasses.replace(settings, direct=False)),
        "SCP, every program to OSQP": build("scp", dataclasses.replace(settings, direct=False, solver="OSQP")),
        "SCP, real-time": build("scp", dataclasses.replace(settings, mode="real_time")),
        BEST: build("lbfgsb", starts=STARTS),
        "L-BFGS-B": build("lbfgsb"),
        "SLSQP": build("slsqp"),
        "projected gradient": build("gradient"),
        "cross-entropy": build("cem"),
        AT_ONCE: build("shooting"),
        SERIAL: build("shooting", batched=False),
        "shooting, 100, whole range": build("shooting", batched=False, spread=None),
        "shooting, 1,000, at once": build("shooting", samples=1_000),
    }


def main_methods(model: SystemModel, settings: PlannerSettings, seed: int) -> dict[str, Any]:
    """Return the methods of the comparisons under other readings of the paper."""
    methods = all_methods(model, settings, seed)
    return {name: methods[name] for name in (SCP, "SCP, real-time", BEST, "L-BFGS-B", "SLSQP")}


def shooting_methods(model: SystemModel, network: WideNetwork, settings: PlannerSettings, seed: int) -> dict[str, Any]:
    """Return SCP and 100-sample shooting: all sequences at once, one by one, and through the published network."""
    methods = all_methods(model, settings, seed)
    published = PublishedShooting(network, model.n_clusters, settings, price_limits(model), seed=seed)
    return {**{name: methods[name] for name in (SCP, AT_ONCE, SERIAL)}, PUBLISHED: published}


def price_limits(model: SystemModel) -> np.ndarray:
    """Return the highest log prices (G,) that the methods may plan."""
    return model.prices.to_log(4.0 * np.maximum(model.price_limit, model.prices.scale))


def compare(states: Sequence[State], methods: Mapping[str, Any]) -> dict[str, Any]:
    """Run every method on every state, in turn, starting with another method for each state.

    Returns:
        Method → mean ``objective``; its ``excess`` over the best method's; the shares of states where it is ``as_good``
        as the best or ``better``; ``wall_ms`` and ``cpu_ms`` as [median, 10 % quantile, 90 % quantile]; mean
        ``iterations``; the share that ``converged``.
    """
    names = list(methods)
    wall, cpu = ({name: np.empty(len(states)) for name in names} for _ in range(2))
    value, converged, iterations = ({name: np.empty(len(states)) for name in names} for _ in range(3))
    for name in names:  # warm up caches and first-use imports
        methods[name].plan(*states[0])
    for k, state in enumerate(states):
        for j in range(len(names)):
            name = names[(j + k) % len(names)]
            began, busy = time.perf_counter(), time.process_time()
            result = methods[name].plan(*state)
            wall[name][k], cpu[name][k] = time.perf_counter() - began, time.process_time() - busy
            value[name][k], converged[name][k] = result.objective, result.converged
            iterations[name][k] = result.iterations
    best = value[BEST] if BEST in value else np.min(list(value.values()), axis=0)
    return {
        name: {
            "objective": float(value[name].mean()),
            "excess": float(value[name].sum() / best.sum() - 1),
            "as_good": float((value[name] <= CLOSE[0] * best + CLOSE[1]).mean()),
            "better": float((best > CLOSE[0] * value[name] + CLOSE[1]).mean()),
            "wall_ms": _quantiles(wall[name]),
            "cpu_ms": _quantiles(cpu[name]),
            "iterations": float(iterations[name].mean()),
            "converged": float(converged[name].mean()),
        }
        for name in names
    }


def _quantiles(seconds: np.ndarray) -> list[float]:
    """Return the median, 10 % and 90 % quantile in milliseconds."""
    return (1e3 * np.quantile(seconds, [0.5, 0.1, 0.9])).tolist()
