"""Do policies rank in the fitted environment as they rank in the live cascade?

Every policy chooses by what is known before the requests come: fitted models and logged states. It is then worth two
things on the same requests: what the fitted environment says, and what the live cascade's exact outcomes say.
M requests, J joint actions, G clusters, P policies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from benchmarks.days.headroom import independent_values
from benchmarks.days.policies import Commissioning
from marca_env.cascade.behaviour_policy import behaviour_actions
from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import allocate
from marca_env.traffic.dual_bound import dual_bound
from marca_env.traffic.workload import Traffic

RESAMPLES = 1000


def policies(engine: Engine, states: np.ndarray, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Joint action (M,) of each request in ``states`` (M, F) under each policy, by name; and the prices (G,) that fit
    the budgets at the peak, by the fitted models on logged states."""
    scenario = engine.scenario
    known = Commissioning(scenario, engine, Traffic("peak", np.array([scenario.peak_qps])), seed)
    budget, alike = scenario.budgets / scenario.peak_qps, np.full(len(known.states), 1.0 / len(known.states))
    prices = dual_bound(known.revenue, known.costs, alike, budget)[1]
    keep, rng = known.truncation_actions, np.random.default_rng([seed, 7])
    values, costs = engine.table(states)
    alone, shape = independent_values(scenario, values), np.array(scenario.action_shape)
    alone_prices = dual_bound(independent_values(scenario, known.revenue), known.costs, alike, budget)[1]
    few = dual_bound(known.revenue[:, keep], known.costs[:, keep], alike, budget)[1]
    n, last = len(states), scenario.n_joint_actions - 1

    def always(action: int) -> np.ndarray:
        return np.full(n, action)

    value = scenario.feature_names.index("uv")
    valuable = states[:, value] >= scenario.features[value].size // 2
    chosen = {
        "static, cheapest": always(0),
        "static, middle": always(int(scenario.joint_index(shape // 2))),
        "static, dearest": always(last),
        "static, best that fits": always(known.static_action),
        "truncation only": keep[allocate(values[:, keep], costs[:, keep], few)],
        "dearest for valuable users": np.where(valuable, last, 0),
        "independent stages": allocate(alone, costs, alone_prices),
        "random": rng.integers(0, last + 1, n),
        "behaviour": scenario.joint_index(behaviour_actions(scenario, states, rng)),
    }
    for label, factor in (("0", 0.0), ("λ/4", 0.25), ("λ", 1.0), ("4λ", 4.0), ("16λ", 16.0)):
        chosen[f"greedy at {label}"] = allocate(values, costs, factor * prices)
    return chosen, prices


def worth(chosen: dict[str, np.ndarray], pool: RequestPool, prices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Revenue, and revenue − Σ λ_g C_g, of each request under each policy by the pool's outcomes: (P, M) each."""
    actions, rows = np.stack(list(chosen.values())), np.arange(len(pool.states))
    revenue = pool.outcomes["revenue"][rows, actions].astype(np.float64)
    return revenue, revenue - pool.costs[rows, actions].astype(np.float64) @ prices


def agreement(fitted: np.ndarray, live: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Kendall's τ of the policies' means (P, M) in both, with a 95 % bootstrap interval over requests.

    Returns:
        ``tau``, ``interval``; ``best``: the live mean of the policy that the fitted environment thinks best, over that
        of the one that is.
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
