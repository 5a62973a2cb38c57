"""Planning methods by name: sequential convex programming, and the searches that it is compared with.

All minimise Eq. 17 (:class:`mpc.planning.objective.Objective`) over log prices (N,G) in [0, top] and follow the
protocol :class:`mpc.planning.planning_method.PlanningMethod`, so :class:`mpc.MPCBalancer` runs with any of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from marca_env.utils.errors import InputError, unknown_option
from mpc.planning.alternatives.descent import ProjectedGradient, QuasiNewton, SequentialQuadratic
from mpc.planning.alternatives.sampling import CrossEntropy, RandomShooting
from mpc.planning.planning_method import PlannerSettings, PlanningMethod
from mpc.planning.scp import SCPPlanner

PLANNING_METHODS: dict[str, Any] = {
    "scp": SCPPlanner,
    "shooting": RandomShooting,
    "slsqp": SequentialQuadratic,
    "lbfgsb": QuasiNewton,
    "gradient": ProjectedGradient,
    "cem": CrossEntropy,
}
"""Class of each method."""
_RANDOM = ("shooting", "lbfgsb", "cem")


def make_planning_method(
    name: str, n_clusters: int, settings: PlannerSettings, top: np.ndarray, seed: int = 0, **options: Any
) -> PlanningMethod:
    """Return the planning method of a name in :data:`PLANNING_METHODS`.

    Args:
        name: the method; "scp" is :class:`mpc.planning.scp.SCPPlanner`.
        n_clusters: G.
        settings: settings of the objective and of the search.
        top: (G,) greatest log prices.
        seed: seed of the methods that draw random numbers.
        options: keyword arguments of the method's class.

    Raises:
        InputError: an unknown name, or a rate limit for a method that does not support it.
    """
    if name not in PLANNING_METHODS:
        raise InputError(unknown_option("planning method", name, PLANNING_METHODS))
    if name in _RANDOM:
        options["seed"] = seed
    return PLANNING_METHODS[name](n_clusters, settings, top, **options)
