"""Sequential convex programming for Eq. 17 (arXiv 2512.24325): linearise the loads, solve the program, repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from marca_env.errors import InputError
from mpc.problem import LoadProblem, Objective, ObjectiveSettings
from mpc.system_model import SystemModel


class ModelError(RuntimeError):
    """The system model returned loads that are not finite: fit it again on a log that covers these prices."""


@dataclass(frozen=True)
class PlannerSettings(ObjectiveSettings):
    """Eq. 17 and how it is solved."""

    trust_region: float = 1.0
    """Largest move of a log price between two linearisations."""
    iterations: int = 5
    """Most linearisations a minute."""
    tolerance: float = 1e-6
    """Stop once the objective (in budgets squared) falls by less than this."""
    rate_limit: float | None = None
    """Largest change of a log price from one minute to the next; ``None``: free."""
    solver: str = "CLARABEL"
    """"CLARABEL" or "OSQP"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("trust_region", "tolerance", "iterations"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")


class Now(NamedTuple):
    """Where a plan starts."""

    in_force: np.ndarray
    """(G,) log prices of the last minute."""
    load: np.ndarray
    """(G,) load of the last minute, in budgets."""
    target: np.ndarray
    """(G,) load to aim at, in budgets."""


class Point(NamedTuple):
    """A price sequence, its loads in budgets and their derivative."""

    log_prices: np.ndarray  # (N,G)
    loads: np.ndarray  # (N,G)
    slopes: np.ndarray  # (N,G,G)


class PredictedLoads:
    """Loads of a horizon, in budgets, as a function of log prices.

    Args:
        model: where the derivative comes from.
        logs: log prices (N,G) → log cost per request (N,G), e.g. of :meth:`SystemModel.rollout_log_cost`.
        qps: (N,) forecast traffic.
        budget: (G,) core-seconds per second.
    """

    def __init__(
        self, model: SystemModel, logs: Callable[[torch.Tensor], torch.Tensor], qps: np.ndarray, budget: np.ndarray
    ) -> None:
        self.model, self.logs, self.qps, self.budget = model, logs, qps, budget

    def linearised(self, log_prices: np.ndarray) -> Point:
        """Loads and slopes at log prices (N,G).

        Raises:
            ModelError: loads or slopes that are not finite.
        """
        point = torch.as_tensor(np.ascontiguousarray(log_prices), device=self.model.device)
        loads, slopes = self.model.linearise(self.logs, self.qps, point)
        if not (np.isfinite(loads).all() and np.isfinite(slopes).all()):
            raise ModelError("predicted loads are not finite; fit the model on a log that covers these prices")
        return Point(log_prices, loads / self.budget, slopes / self.budget[:, None])

    def reachable(self, log_prices: np.ndarray) -> np.ndarray:
        """Largest load (G,) of each cluster in the first minute, in budgets: its own price zero, the others given."""
        free = []
        for g in range(log_prices.shape[1]):
            point = np.array(log_prices)
            point[:, g] = 0.0
            free.append(self.linearised(point).loads[0, g])
        return np.array(free)


class Planner:
    """Finds the price sequence that minimises Eq. 17.

    Args:
        n_clusters: G.
        settings: the objective and the search.
        top: (G,) highest log prices.

    Attributes:
        problem: the compiled program; never rebuilt.
    """

    def __init__(self, n_clusters: int, settings: PlannerSettings, top: np.ndarray) -> None:
        self.settings, self.top = settings, top
        self.problem = LoadProblem(n_clusters, settings, rate_limit=settings.rate_limit, solver=settings.solver)
        self._undamped = Objective(dataclasses.replace(settings, damping="none"))

    def plan(self, predicted: PredictedLoads, now: Now, nominal: np.ndarray | None = None) -> Point:
        """A minimum of Eq. 17, started from log prices ``nominal`` (N,G), or from those in force.

        The damping term makes Eq. 17 non-convex: from above the threshold it holds the load up there. So the minimum
        without it is sought first. Where that keeps below the threshold it is the minimum with the term as well;
        otherwise the descent goes on with the term, from there or from the nominal sequence, whichever is better.

        Raises:
            SolverError: the program could not be solved.
            ModelError: the model's loads are not finite.
        """
        limit, objective = self.settings.rate_limit, self.problem.objective
        if nominal is None or (limit is not None and np.any(np.abs(nominal[0] - now.in_force) > limit)):
            nominal = np.broadcast_to(now.in_force, self.problem.shape)
        start = predicted.linearised(np.clip(nominal, 0.0, self.top))
        if self.settings.damping == "measured":
            return self._descend(start, predicted, objective, now)
        point = self._descend(start, predicted, self._undamped, now)
        if not objective.damped(point.loads, now.load).any():
            return point
        best = min(point, start, key=lambda candidate: float(objective(candidate.loads, now.load, now.target)))
        return self._descend(best, predicted, objective, now)

    def _descend(self, point: Point, predicted: PredictedLoads, objective: Objective, now: Now) -> Point:
        """Linearise, solve, accept what lowers the objective, shrink the trust region where it does not."""
        s = self.settings
        value, radius = float(objective(point.loads, now.load, now.target)), s.trust_region
        for _ in range(s.iterations):
            u = point.log_prices
            solution = self.problem.solve(
                point.loads,
                point.slopes,
                u,
                now.load,
                low=np.maximum(u - radius, 0.0),
                high=np.minimum(u + radius, self.top),
                damped=objective.damped(point.loads, now.load),
                target=now.target,
                previous=now.in_force,
            )
            trial = predicted.linearised(solution.log_prices)
            trial_value = float(objective(trial.loads, now.load, now.target))
            gain = value - trial_value
            if gain > 0:
                point, value = trial, trial_value
            else:
                radius *= 0.25
            if 0 <= gain < s.tolerance or radius < 1e-3:
                break
        return point
