"""Ranking of policies in the fitted environment, compared with their ranking in the live cascade.

Every policy chooses by fitted models and logged states alone, which are known before the requests come. Its revenue on
the same requests is then computed twice: by the fitted environment, and by the live cascade's exact outcomes.
M requests, J joint actions, G clusters, P policies, R resamples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from benchmarks.days.calibration import Calibration
from benchmarks.days.independent_values import independent_values
from marca_env.cascade.behaviour_policy import behaviour_actions
from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import allocate
from marca_env.traffic.dual_bound import dual_bound

RESAMPLES = 1000


def policies(engine: Engine, states: np.ndarray, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Let every policy choose a joint action for each request.

    Args:
        engine: the fitted environment.
        states: (M, F) requests.
        seed: of logged states and random policies.

    Returns:
        Policy → joint actions (M,); and the prices λ (G,) that fit the budgets at the peak traffic, by the fitted
        models on logged states.
    """
    scenario = engine.scenario
    calibration = Calibration(engine, seed, requests=900)
    sample, keep = calibration.pool, calibration.truncation_actions
    assert sample.weights is not None
    budget, shares = scenario.budgets / scenario.peak_qps, sample.weights / sample.weights.sum()
    logged_values = sample.outcomes["revenue"]
    prices, rng = dual_bound(logged_values, sample.costs, shares, budget)[1], np.random.default_rng([seed, 7])
    values, costs = engine.table(states)
    independent, shape = independent_values(scenario, values), np.array(scenario.action_shape)
    independent_prices = dual_bound(independent_values(scenario, logged_values), sample.costs, shares, budget)[1]
    truncation_prices = dual_bound(logged_values[:, keep], sample.costs[:, keep], shares, budget)[1]
    n, last = len(states), scenario.n_joint_actions - 1

    def always(action: int) -> np.ndarray:
        return np.full(n, action)

    user_value = scenario.feature_names.index("uv")
    valuable = states[:, user_value] >= scenario.features[user_value].size // 2
    actions = {
        "static, cheapest": always(0),
        "static, middle": always(int(scenario.joint_index(shape // 2))),
        "static, most expensive": always(last),
        "static, best that fits": always(calibration.static_action),
        "truncation only": keep[allocate(values[:, keep], costs[:, keep], truncation_prices)],
        "most expensive for valuable users": np.where(valuable, last, 0),
        "independent stages": allocate(independent, costs, independent_prices),
        "random": rng.integers(0, last + 1, n),
        "behaviour": scenario.joint_index(behaviour_actions(scenario, states, rng)),
    }
    for label, factor in (("0", 0.0), ("λ/4", 0.25), ("λ", 1.0), ("4λ", 4.0), ("16λ", 16.0)):
        actions[f"greedy at {label}"] = allocate(values, costs, factor * prices)
    return actions, prices


def revenue_and_net(
    actions: dict[str, np.ndarray], pool: RequestPool, prices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the revenue, and revenue − Σ λ_g C_g, of each request under each policy by the pool's outcomes.

    Args:
        actions: policy → joint actions (M,).
        pool: the requests with their outcomes and costs.
        prices: (G,) λ, currency per core-second.

    Returns:
        Two arrays (P, M), currency.
    """
    table, rows = np.stack(list(actions.values())), np.arange(len(pool.states))
    revenue = pool.outcomes["revenue"][rows, table].astype(np.float64)
    return revenue, revenue - pool.costs[rows, table].astype(np.float64) @ prices


def agreement(fitted: np.ndarray, live: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Compare how two environments rank the policies.

    Args:
        fitted: (P, M) revenue or net revenue of each policy in the fitted environment.
        live: (P, M) the same in the live cascade.
        seed: of the bootstrap.

    Returns:
        ``policies`` (P); ``tau``, Kendall's τ of the policies' means; its 95 % bootstrap ``interval`` over requests;
        ``best``, the live mean of the policy that is best in the fitted environment, over the highest live mean.
    """
    rng, (n_policies, n) = np.random.default_rng([seed, 8]), fitted.shape
    means = fitted.mean(axis=1), live.mean(axis=1)
    weights = rng.multinomial(n, np.full(n, 1.0 / n), RESAMPLES) / n  # (R, M)
    drawn = weights @ fitted.T, weights @ live.T
    taus = [stats.kendalltau(a, b).statistic for a, b in zip(*drawn, strict=True)]
    low, high = np.quantile(taus, [0.025, 0.975])
    return {
        "policies": n_policies,
        "tau": float(stats.kendalltau(*means).statistic),
        "interval": [float(low), float(high)],
        "best": float(means[1][means[0].argmax()] / means[1].max()),
    }
