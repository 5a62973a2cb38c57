"""Headroom of a scenario: how much better than a static action one could do, by true expected values.

Shapes: M requests, J joint actions, G clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.allocation import allocate
from marca_env.traffic.dual_bound import dual_bound
from marca_env.utils.errors import InputError


@dataclass(frozen=True)
class Headroom:
    """Gains over the best static action that fits a budget, as shares of its revenue."""

    share: float
    """Budget of each cluster, as a share of the mean cost of its most expensive action."""
    static: float
    """Revenue per request of the best static action that fits, currency."""
    truncation: float
    """Dual bound when only the last decision adapts to the state (DCAF)."""
    independent: float
    """Revenue reached by stages that each know only their own mean effect in the state, without interaction."""
    joint: float
    """Dual bound when the joint action adapts to the observable state."""
    hindsight: float
    """Dual bound when it adapts to the request itself."""


def headroom(pool: RequestPool, shares: list[float]) -> list[Headroom]:
    """Return the headroom at each budget of ``shares``, with the pool's outcomes and costs as the truth.

    The value of an observable state is the mean over its requests, so the joint bound needs many requests per state.
    The state leaves out the time window, and the data centre if all share their clusters: both only shift click logits.

    Raises:
        InputError: a budget below the cheapest action.
    """
    counts = np.ones(len(pool.states)) if pool.weights is None else np.asarray(pool.weights, dtype=np.float64)
    counts = counts / counts.sum()
    revenue, costs = pool.outcomes["revenue"].astype(np.float64), pool.costs.astype(np.float64)
    groups = _observable(pool)
    weights = np.bincount(groups, weights=counts)
    values, state_costs = _means(revenue, groups, counts), _means(costs, groups, counts)
    mean, mean_cost = counts @ revenue, np.tensordot(counts, costs, 1)
    tables = revenue, costs, counts, values, state_costs, weights, mean, mean_cost
    return [_headroom_at(pool.scenario, share, *tables) for share in shares]


def least_share(pool: RequestPool) -> float:
    """Return the smallest budget, as a share of the most expensive action's cost, that one action fits everywhere."""
    weights = np.ones(len(pool.states)) if pool.weights is None else pool.weights
    return _least(np.average(pool.costs, axis=0, weights=weights))


def _least(mean_cost: np.ndarray) -> float:
    return float((mean_cost / mean_cost.max(axis=0)).max(axis=1).min())


def _headroom_at(
    scenario: Scenario,
    share: float,
    revenue: np.ndarray,
    costs: np.ndarray,
    counts: np.ndarray,
    values: np.ndarray,
    state_costs: np.ndarray,
    weights: np.ndarray,
    mean: np.ndarray,
    mean_cost: np.ndarray,
) -> Headroom:
    budget = share * mean_cost.max(axis=0)
    fits = (mean_cost <= budget).all(axis=1)
    if not fits.any():
        cheapest = _least(mean_cost)
        raise InputError(f"a budget of {share:.1%} is below the cheapest action ({cheapest:.1%}); use a higher one")
    best = int(np.where(fits, mean, -np.inf).argmax())
    actions = scenario.joint_actions
    same_but_last = np.flatnonzero((actions[:, :-1] == actions[best, :-1]).all(axis=1))
    bounds = [
        dual_bound(values[:, same_but_last], state_costs[:, same_but_last], weights, budget)[0],
        _independent(scenario, values, state_costs, weights, budget),
        dual_bound(values, state_costs, weights, budget)[0],
        dual_bound(revenue, costs, counts, budget)[0],
    ]
    return Headroom(share, float(mean[best]), *[float(b / mean[best] - 1) for b in bounds])


def _observable(pool: RequestPool) -> np.ndarray:
    """Return the observable state of each request as the number of a group, (M,)."""
    scenario = pool.scenario
    columns = [k for k, name in enumerate(scenario.feature_names) if name == scenario.site or name not in ("w", "i")]
    return np.unique(pool.states[:, columns], axis=0, return_inverse=True)[1].ravel()


def _means(values: np.ndarray, groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of each group, with the weights ``counts`` (M,)."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(groups.max() + 1))
    weight = counts[order].reshape(-1, *[1] * (values.ndim - 1))
    return np.add.reduceat(weight * values[order], starts, axis=0) / np.add.reduceat(weight, starts, axis=0)


def _independent(
    scenario: Scenario, values: np.ndarray, costs: np.ndarray, weights: np.ndarray, budget: np.ndarray
) -> float:
    """Return the true revenue of an allocation by :func:`independent_values` at the prices that are best for them."""
    independent = independent_values(scenario, values)
    prices = dual_bound(independent, costs, weights, budget)[1]
    actions = allocate(independent, costs, prices)
    return float(weights @ values[np.arange(len(values)), actions])


def independent_values(scenario: Scenario, values: np.ndarray) -> np.ndarray:
    """Return the sum of each stage's own mean effect on the values (M,J), (M,J): the values without interaction."""
    grid = values.reshape(len(values), *scenario.action_shape)
    centre = values.mean(axis=1, keepdims=True)
    independent = np.repeat(centre, values.shape[1], axis=1)
    for stage in set(scenario.decision_stage):
        other_axes = tuple(1 + k for k, s in enumerate(scenario.decision_stage) if s != stage)
        effect = grid.mean(axis=other_axes, keepdims=True)
        independent += np.broadcast_to(effect, grid.shape).reshape(values.shape) - centre
    return independent
