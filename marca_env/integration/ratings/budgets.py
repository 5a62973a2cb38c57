"""Budgets of a new scenario whose shares are those of the scenario that it was derived from.

The share of a cluster's budget is that of `marca headroom`: budget / (peak rate · mean cost of the most expensive joint
action). Costs differ between machines and catalogues; with the same shares computation is as scarce as before.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from marca_env.models.engine import Engine, artefact_folder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

USUAL_SHARE = 0.125
"""Share of each cluster where the base scenario has no fitted models; about that of the default scenario."""
_CORES_PER_BUDGET = 1.4
_REQUESTS = 300
_SIGNIFICANT = 3  # digits of a budget


def with_shares_of(base: Scenario, scenario: Scenario) -> tuple[Scenario, dict[str, float]]:
    """Return ``scenario`` with budgets and cores of the same shares as those of ``base``, and the shares by cluster.

    Args:
        base: scenario with the same clusters; without fitted models each share is :data:`USUAL_SHARE`.
        scenario: scenario whose folder holds fitted models.
    """
    costs = scenario.peak_qps * _highest_costs(scenario)
    if (artefact_folder(base) / "cost_model").is_dir():
        old = base.peak_qps * _highest_costs(base)
        shares, spare = base.budgets / old, base.cores / base.budgets
    else:
        shares = np.full(len(costs), USUAL_SHARE)
        spare = np.full(len(costs), _CORES_PER_BUDGET)
    if not (costs > 0).all():
        name = scenario.cluster_names[int(np.argmin(costs))]
        raise InputError(f"cluster {name!r}: the fitted costs are zero; measure them again with a longer --budget")
    clusters = []
    for cluster, cost, share, more in zip(scenario.clusters, costs, shares, spare, strict=True):
        budget = _rounded(share * cost)
        clusters.append(replace(cluster, budget=budget, cores=max(_rounded(more * share * cost), budget)))
    return scenario.replace(clusters=tuple(clusters)), dict(zip(scenario.cluster_names, shares.tolist(), strict=True))


def _highest_costs(scenario: Scenario) -> np.ndarray:
    """Return the mean cost of the most expensive joint action on each cluster, core-seconds per request, (G,)."""
    pool = Engine.load(scenario).pool(_REQUESTS, seed=0)
    assert pool.weights is not None
    return np.average(pool.costs.astype(np.float64), axis=0, weights=pool.weights).max(axis=0)


def _rounded(number: float) -> float:
    return float(f"{number:.{_SIGNIFICANT}g}")
