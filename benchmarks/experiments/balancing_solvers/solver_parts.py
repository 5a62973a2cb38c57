"""What a control step of the model-predictive balancer is made of, and what the ways not taken would cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.func import jacrev, jvp, vmap

from mpc.model.conditions import Conditions

if TYPE_CHECKING:
    from benchmarks.experiments.balancing_solvers.solver_states import State
    from mpc import SystemModel
    from mpc.planning.scp import PlannerSettings

REPEATS = 30


def parts(state: State, model: SystemModel, settings: PlannerSettings, top: np.ndarray) -> dict[str, float]:
    """Median CPU time, milliseconds, of what a step is made of, beside the ways not taken."""

    from mpc.planning.scp import Planner

    planner, (predicted, now, _) = Planner(model.n_clusters, settings, top), state
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

    def convex_by(**changes: Any) -> None:
        """Without the closed form, and without whatever else ``changes`` takes away."""
        problem = planner.problem
        kept = {name: getattr(problem, name) for name in ("closed_form", *changes)}
        problem.__dict__.update(closed_form=None, **changes)
        convex()
        problem.__dict__.update(kept)

    timed: dict[str, Callable[[], Any]] = {
        "loads and slopes": lambda: predicted.linearised(u),
        "slopes by backward passes": backward_passes,
        "slopes by torch.func.jvp under vmap": lambda: vmap(
            lambda d: jvp(predicted.tensor, (tensor,), (d.expand_as(tensor),))[1]
        )(directions),
        "slopes by torch.func.jacrev": lambda: jacrev(predicted.tensor)(tensor),
        "convex program, closed form": convex,
        "convex program, compiled": convex_by,
        "convex program, Problem.solve": lambda: convex_by(program=None),
        "100 loads at once": lambda: predicted.loads(np.broadcast_to(u, (100, *u.shape))),
        "100 loads one by one": lambda: [predicted.loads(u) for _ in range(100)],
        "a minute of one sequence, SystemModel.predict": lambda: model.predict(
            now.load, last, model.prices.scale, last, model.prices.scale
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in timed}
    for repeat in range(REPEATS + 1):
        for name, work in timed.items():
            began = time.process_time()
            work()
            if repeat > 0:
                found[name].append(1e3 * (time.process_time() - began))
    return {name: float(np.median(times)) for name, times in found.items()}
