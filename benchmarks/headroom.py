"""What there is to gain in a scenario, by true expected values: is it worth solving, and do stages need each other?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marca_env.errors import InputError
from marca_env.outcomes import OutcomeTable
from marca_env.scenario import Scenario
from marca_env.serving import allocate, dual_bound


@dataclass(frozen=True)
class Headroom:
    """Gains over the best static action that fits a budget; shares of its revenue."""

    share: float
    """Budget of every cluster, as a share of the mean cost of the dearest action there."""
    static: float
    """Revenue per request of the best static action that fits, currency."""
    truncation: float
    """Dual bound when only the last decision adapts to the state (DCAF)."""
    independent: float
    """What stages reach that each know only their own mean effect in the state (no interaction)."""
    joint: float
    """Dual bound when the joint action adapts to the observable state."""
    hindsight: float
    """Dual bound when it adapts to the request itself."""


def headroom(table: OutcomeTable, costs: np.ndarray, shares: list[float]) -> list[Headroom]:
    """Headroom at each budget of ``shares``; ``costs`` (M, J, G) core-seconds.

    Values over observable states are means over the requests of a state (data centre and time window left out, since
    they only shift the mood), so the joint bound needs many requests per state.

    Raises:
        InputError: a budget below the cheapest action.
    """
    revenue = table.outcomes["revenue"].astype(np.float64)
    groups, weights = _observable(table)
    values, state_costs = _means(revenue, groups), _means(costs, groups)
    mean, mean_cost = revenue.mean(axis=0), costs.mean(axis=0)
    return [
        _at(table.scenario, share, revenue, costs, values, state_costs, weights, mean, mean_cost) for share in shares
    ]


def _at(
    scenario: Scenario,
    share: float,
    revenue: np.ndarray,
    costs: np.ndarray,
    values: np.ndarray,
    state_costs: np.ndarray,
    weights: np.ndarray,
    mean: np.ndarray,
    mean_cost: np.ndarray,
) -> Headroom:
    budget = share * mean_cost.max(axis=0)
    fits = (mean_cost <= budget).all(axis=1)
    if not fits.any():
        cheapest = (mean_cost / mean_cost.max(axis=0)).max(axis=1).min()
        raise InputError(f"a budget of {share:.1%} is below the cheapest action ({cheapest:.1%}); raise it")
    best = int(np.where(fits, mean, -np.inf).argmax())
    actions = scenario.joint_actions
    same = np.flatnonzero((actions[:, :-1] == actions[best, :-1]).all(axis=1))
    bounds = [
        dual_bound(values[:, same], state_costs[:, same], weights, budget)[0],
        _independent(scenario, values, state_costs, weights, budget),
        dual_bound(values, state_costs, weights, budget)[0],
        dual_bound(revenue, costs, np.full(len(revenue), 1 / len(revenue)), budget)[0],
    ]
    return Headroom(share, float(mean[best]), *[float(b / mean[best] - 1) for b in bounds])


def _observable(table: OutcomeTable) -> tuple[np.ndarray, np.ndarray]:
    """Group of each request (M,) and the share of each group."""
    names = [f for f in table.scenario.feature_names if f not in ("w", "i")]
    columns = table.states[:, [table.scenario.feature_names.index(n) for n in names]]
    _, groups, counts = np.unique(columns, axis=0, return_inverse=True, return_counts=True)
    return groups.ravel(), counts / counts.sum()


def _means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(groups.max() + 1))
    sizes = np.diff(np.append(starts, len(groups))).reshape(-1, *[1] * (values.ndim - 1))
    return np.add.reduceat(values[order].astype(np.float64), starts, axis=0) / sizes


def _independent(
    scenario: Scenario, values: np.ndarray, costs: np.ndarray, weights: np.ndarray, budget: np.ndarray
) -> float:
    """True revenue of the best prices for values that are a sum of each stage's own mean effect."""
    grid = values.reshape(len(values), *scenario.action_shape)
    centre = values.mean(axis=1, keepdims=True)
    believed = np.repeat(centre, values.shape[1], axis=1)
    for stage in set(scenario.decision_stage):
        others = tuple(1 + k for k, s in enumerate(scenario.decision_stage) if s != stage)
        effect = grid.mean(axis=others, keepdims=True)
        believed += np.broadcast_to(effect, grid.shape).reshape(values.shape) - centre
    prices = dual_bound(believed, costs, weights, budget)[1]
    chosen = allocate(believed, costs, prices)
    return float(weights @ values[np.arange(len(values)), chosen])
