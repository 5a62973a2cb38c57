"""The protocol of planning methods, with their settings and their result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from marca_env.utils.errors import InputError, unknown_option
from mpc.planning.deadline import Deadline
from mpc.planning.objective import Objective, ObjectiveSettings, PlanStart
from mpc.planning.predicted_loads import LinearisedLoads, PredictedLoads
from mpc.validation import FINITE_POSITIVE, check_fields, whole_number

MODES = ("converged", "real_time")


@dataclass(frozen=True)
class PlannerSettings(ObjectiveSettings):
    """Settings of Eq. 17 and of its minimisation."""

    trust_region: float = 1.0
    """Initial bound on the move of a log price between two linearisations."""
    iterations: int = 12
    """Largest number of convex programs in a descent."""
    tolerance: float = 2e-7
    """The descent stops when the objective, in budgets squared, falls by less than this."""
    mode: Literal["converged", "real_time"] = "converged"
    """``converged``: iterate until the objective stops falling; ``real_time``: solve one convex program a minute, so
    that the iterations are spread over the minutes."""
    restarts: int = 2
    """Largest number of descents from the best of a sample of price sequences, where the threshold of damping makes
    several valleys and the plan is not in the best one. 0: descend from the prices in force only."""
    rate_limit: float | None = None
    """Largest change of a log price from one minute to the next; ``None``: no limit."""
    solver: str = "CLARABEL"
    """"CLARABEL" or "OSQP"."""
    direct: bool = True
    """Solve a convex program by linear systems where its active set settles, which is several times faster, and use the
    solver for the others; see :mod:`mpc.planning.active_set`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise InputError(unknown_option("mode", self.mode, MODES))
        rules = {
            "trust_region": FINITE_POSITIVE,
            "tolerance": FINITE_POSITIVE,
            "iterations": whole_number(1),
            "restarts": whole_number(0),
        }
        check_fields(self, rules | ({} if self.rate_limit is None else {"rate_limit": FINITE_POSITIVE}))


class PlanResult(NamedTuple):
    """A plan, and how it was computed."""

    plan: LinearisedLoads
    """The prices of the horizon, with their loads and slopes."""
    objective: float
    """J of the plan (Eq. 17), budgets squared."""
    iterations: int
    """Convex programs solved, or rounds of another search."""
    converged: bool
    """Whether the method's own test of convergence holds."""
    reason: str
    """Why the search ended: ``tolerance``, ``iterations`` or ``deadline``."""
    seconds: float
    """Time taken."""
    restarts: int = 0
    """Descents from other valleys than that of the nominal sequence."""
    restart_gap: float = float("nan")
    """J of the best restart relative to the descent from the nominal sequence, less 1. Negative: the restart was better
    and became the plan. NaN: no restart was needed."""


class PlanningMethod(Protocol):
    """Searches the price sequence that minimises Eq. 17.

    The default is :class:`mpc.planning.scp.SCPPlanner`; :data:`mpc.planning.alternatives.registry.PLANNING_METHODS`
    lists all methods.
    """

    objective: Objective

    def plan(
        self,
        predicted: PredictedLoads,
        start: PlanStart,
        nominal: np.ndarray | None = None,
        deadline: Deadline | None = None,
    ) -> PlanResult:
        """Return a plan.

        Args:
            predicted: loads as a function of log prices.
            start: the state from which the plan starts, and its target.
            nominal: (N,G) log prices at which the search starts; ``None``: those in force.
            deadline: the clock that ends the search; ``None``: unlimited.
        """
        ...


def nominal_sequence(
    start: PlanStart, nominal: np.ndarray | None, shape: tuple[int, int], top: np.ndarray, rate_limit: float | None
) -> np.ndarray:
    """Return the log prices (N,G) at which a search starts, within the price bounds.

    Args:
        start: the state from which the plan starts.
        nominal: (N,G) preferred log prices; ``None``, or a violated rate limit: use the prices in force.
        shape: (N, G).
        top: (G,) greatest log prices.
        rate_limit: largest change of a log price from one minute to the next; ``None``: no limit.
    """
    if nominal is None or (rate_limit is not None and np.any(np.abs(nominal[0] - start.in_force) > rate_limit)):
        nominal = np.broadcast_to(start.in_force, shape)
    return np.clip(nominal, 0.0, top)
