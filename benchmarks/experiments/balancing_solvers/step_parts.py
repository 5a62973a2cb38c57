"""Times of the parts of a control step of the model-predictive balancer, and of the alternatives to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.func import jacrev, jvp, vmap

from benchmarks.experiments.balancing_solvers.solver_states import State
from mpc import SystemModel
from mpc.model.conditions import Conditions
from mpc.planning.planning_method import PlannerSettings
from mpc.planning.scp import SCPPlanner

REPEATS = 30


def step_parts(
    state: State, model: SystemModel, settings: PlannerSettings, price_limits: np.ndarray
) -> dict[str, float]:
    """Measure the median CPU time, in milliseconds, of each part of a step and of each alternative.

    Args:
        state: the state that is planned for.
        model: the system model.
        settings: of the planner.
        price_limits: (G,) highest log prices.
    """
    planner, (predicted, now, _) = SCPPlanner(model.n_clusters, settings, price_limits), state
    u = np.tile(now.in_force, (settings.horizon, 1))
    last = Conditions(np.array(100.0), np.array(600), np.zeros(model.n_clusters))
    point, tensor = predicted.linearise(u), torch.tensor(u)
    directions = torch.eye(u.shape[1], dtype=torch.float64)

    def backward_passes() -> None:
        variable = tensor.clone().requires_grad_(True)
        loads = predicted.tensor(variable)
        for g in range(u.shape[1]):
            torch.autograd.grad(loads[:, g].sum(), variable, retain_graph=True)

    def solve_convex() -> None:
        planner.problem.solve(
            point.loads, point.slopes, u, now.load, low=u - 1, high=u + 1, damped=point.loads > 1, target=now.target
        )

    def solve_convex_by_solver(**changes: Any) -> None:
        problem = planner.problem
        before = {name: getattr(problem, name) for name in ("active_set", *changes)}
        problem.__dict__.update(active_set=None, **changes)
        solve_convex()
        problem.__dict__.update(before)

    timed: dict[str, Callable[[], Any]] = {
        "loads and slopes": lambda: predicted.linearise(u),
        "slopes by backward passes": backward_passes,
        "slopes by torch.func.jvp under vmap": lambda: vmap(
            lambda d: jvp(predicted.tensor, (tensor,), (d.expand_as(tensor),))[1]
        )(directions),
        "slopes by torch.func.jacrev": lambda: jacrev(predicted.tensor)(tensor),
        "convex program, closed form": solve_convex,
        "convex program, compiled": solve_convex_by_solver,
        "convex program, Problem.solve": lambda: solve_convex_by_solver(compiled=None),
        "100 loads at once": lambda: predicted.loads(np.broadcast_to(u, (100, *u.shape))),
        "100 loads one by one": lambda: [predicted.loads(u) for _ in range(100)],
        "a minute of one sequence, SystemModel.predict": lambda: model.predict(
            now.load, last, model.prices.scale, last, model.prices.scale
        ),
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in timed}
    for repeat in range(REPEATS + 1):
        for name, work in timed.items():
            began = time.process_time()
            work()
            if repeat > 0:
                milliseconds[name].append(1e3 * (time.process_time() - began))
    return {name: float(np.median(times)) for name, times in milliseconds.items()}
