"""Bisection on replayed requests (DCAF)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from marca_env.traffic.allocation import allocate
from marca_env.utils.errors import InputError
from mpc import BisectionBalancer
from tests.helpers.small_system import make_pool, observe


def replayed(values, costs, prices, weights=None):
    actions = allocate(values, costs, np.asarray(prices, dtype=float))
    return np.average(costs[np.arange(len(values)), actions], axis=0, weights=weights)


def tables(n=6, n_joint=7, n_clusters=1, seed=0):
    rng = np.random.default_rng(seed)
    costs = rng.uniform(0.1, 2.0, (n, n_joint, n_clusters)).astype(np.float32)
    values = (costs.sum(-1) ** 0.5 * rng.uniform(0.5, 2.0, (n, 1)) + rng.normal(0, 0.1, (n, n_joint))).astype(
        np.float32
    )
    return values, costs


def smallest_by_enumeration(values, costs, allowance):
    """Try all prices of one cluster at which two actions of a request tie: only there can the cost change."""
    ties = [0.0]
    for v, c in zip(values.astype(float), costs[..., 0].astype(float), strict=True):
        for a, b in itertools.permutations(range(len(v)), 2):
            if c[a] > c[b] and v[a] > v[b]:
                ties.append((v[a] - v[b]) / (c[a] - c[b]))
    for price in sorted(ties):
        if replayed(values, costs, [price * (1 + 1e-5) + 1e-9])[0] <= allowance:
            return price
    raise AssertionError("no price fits")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.1])
def test_the_price_of_one_cluster_matches_exact_enumeration(seed, share):
    values, costs = tables(seed=seed)
    free, least = replayed(values, costs, [0.0])[0], replayed(values, costs, [1e6])[0]
    allowance = least + share * (free - least)
    price = BisectionBalancer(values, costs).solve(np.array([allowance]))[0]
    assert price == pytest.approx(smallest_by_enumeration(values, costs, allowance), rel=3e-3, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_prices_of_two_clusters_fit_and_none_can_be_lowered(seed):
    values, costs = tables(n=40, n_joint=30, n_clusters=2, seed=seed)
    allowance = 0.6 * replayed(values, costs, [0.0, 0.0])
    prices = BisectionBalancer(values, costs).solve(allowance)
    assert np.all(prices > 0)
    assert np.all(replayed(values, costs, prices) <= allowance * 1.02)
    for g in range(2):
        lower = prices.copy()
        lower[g] *= 0.9
        assert replayed(values, costs, lower)[g] > allowance[g]


def test_the_price_does_not_depend_on_where_the_search_starts():
    values, costs = tables(n=40, n_joint=30, seed=1)
    balancer, allowance = BisectionBalancer(values, costs), 0.5 * replayed(values, costs, [0.0])
    cold = balancer.solve(allowance)
    for start in (1e-6, 0.1, 1e4):
        assert balancer.solve(allowance, start=np.array([start])) == pytest.approx(cold, rel=5e-3)


def test_update_replays_the_current_window_at_the_budget_per_request():
    pool = make_pool(per_window=20)
    balancer = BisectionBalancer(
        pool.outcomes["revenue"], pool.costs, windows=pool.states[:, 0], n_windows=6, price_max=1e3
    )
    for minute, window in ((10, 0), (700, 2)):
        prices = balancer.update(observe(pool, minute=minute, qps=300.0))
        rows = pool.states[:, 0] == window
        cost = replayed(pool.outcomes["revenue"][rows], pool.costs[rows], prices)
        assert cost * 300.0 == pytest.approx(pool.scenario.budgets, rel=0.05)
    assert balancer.update(observe(pool, minute=10, qps=20.0)).tolist() == [0.0, 0.0]  # computation is free at night
    assert balancer.update(observe(pool, minute=10, qps=1e6)).tolist() == [1e3, 1e3]  # nothing fits


def test_unusable_telemetry_keeps_the_prices():
    pool = make_pool(per_window=4)
    balancer = BisectionBalancer(pool.outcomes["revenue"], pool.costs)
    for bad in (observe(pool, qps=np.nan), observe(pool, qps=0.0), observe(pool, load=[np.inf, 1.0])):
        assert balancer.update(bad).tolist() == [5.0, 5.0]


def test_weights_act_as_repeated_requests():
    values, costs = tables(n=2, n_joint=6, seed=3)
    weights = np.array([9.0, 1.0])
    allowance = 0.7 * replayed(values, costs, [0.0], weights)
    price = BisectionBalancer(values, costs, weights=weights).solve(allowance)
    repeated = np.array([0] * 9 + [1])
    assert price == pytest.approx(BisectionBalancer(values[repeated], costs[repeated]).solve(allowance), rel=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"costs": np.zeros((3, 2, 1))}, "must be"),
        ({"values": np.full((6, 7), np.nan)}, "finite"),
        ({"windows": np.array([0, 1, 2, 3, 4, 9]), "n_windows": 6}, "windows"),
        ({"weights": np.zeros(6)}, "weights"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"price_max": -1.0}, "price_max"),
    ],
)
def test_impossible_input_is_refused(change, message):
    values, costs = tables()
    arguments = {"values": values, "costs": costs, **change}
    with pytest.raises(InputError, match=message):
        BisectionBalancer(arguments.pop("values"), arguments.pop("costs"), **arguments)
