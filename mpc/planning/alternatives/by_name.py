"""The ways to a plan by name: sequential convex programming, and the searches that it is compared with.

All minimise Eq. 17 (:class:`mpc.planning.objective.Objective`) over log prices (N,G) in [0, top] by the protocol of
:class:`mpc.planning.scp.PlanningMethod`, so that :class:`mpc.MPCBalancer` runs with any.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from marca_env.utils.errors import InputError, unknown_option
from mpc.planning.alternatives.descent import ProjectedGradient, QuasiNewton, SequentialQuadratic
from mpc.planning.alternatives.sampling import CrossEntropy, RandomShooting
from mpc.planning.scp import Planner, PlannerSettings, PlanningMethod

METHODS = ("scp", "shooting", "slsqp", "lbfgsb", "gradient", "cem")


def planning_method(
    name: str, n_clusters: int, settings: PlannerSettings, top: np.ndarray, seed: int = 0, **options: Any
) -> PlanningMethod:
    """The planner of a name in :data:`METHODS`.

    Args:
        name: the method; "scp" is :class:`mpc.planning.scp.Planner`.
        n_clusters: G.
        settings: the objective, and what of the search concerns all methods.
        top: (G,) highest log prices.
        seed: of the methods that draw.
        options: of the method's class.

    Raises:
        InputError: an unknown name, or a rate limit for a method that knows none.
    """
    if name not in METHODS:
        raise InputError(unknown_option("planning method", name, METHODS))
    if name == "scp":
        return Planner(n_clusters, settings, top, **options)
    kinds: dict[str, Any] = {
        "shooting": RandomShooting,
        "slsqp": SequentialQuadratic,
        "lbfgsb": QuasiNewton,
        "gradient": ProjectedGradient,
        "cem": CrossEntropy,
    }
    if name in ("shooting", "lbfgsb", "cem"):
        options["seed"] = seed
    return kinds[name](n_clusters, settings, top, **options)
