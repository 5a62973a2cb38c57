"""Prices per slice of the day, searched on replayed traffic."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.traffic.allocation import allocate
from marca_env.utils.errors import InputError
from mpc import Balancer, SliceBalancer
from tests.helpers.small_system import PEAK_QPS, make_pool, observe, sine_days


@pytest.fixture(scope="module")
def pool():
    return make_pool(per_window=20)


def search(pool, qps, **changes):
    options = {"seed": 0, "slices": 6, "rounds": 10, "samples": 24, "price_max": 300.0, **changes}
    return SliceBalancer.search(
        pool.outcomes["revenue"],
        pool.costs,
        qps,
        pool.scenario.budgets,
        windows=pool.states[:, 0],
        n_windows=6,
        **options,
    )


def loads(pool, balancer, qps):
    """Return the mean load (1440,G) in budgets; the requests of a window are equally frequent."""
    load = np.empty((1440, 2))
    for window in range(6):
        rows = pool.states[:, 0] == window
        for minute in range(240 * window, 240 * (window + 1)):
            prices = balancer.update(observe(pool, minute=minute))
            actions = allocate(pool.outcomes["revenue"][rows], pool.costs[rows], prices)
            load[minute] = qps[minute] * pool.costs[rows][np.arange(rows.sum()), actions].mean(0)
    return load / pool.scenario.budgets


def test_constant_traffic_uses_the_budget_in_every_slice(pool):
    qps = np.full(1440, 0.8 * PEAK_QPS)
    balancer = search(pool, qps)
    assert isinstance(balancer, Balancer)
    assert balancer.prices.shape == (6, 2)
    load = loads(pool, balancer, qps)[::240]
    assert np.all(load < 1.01)
    assert load.mean() > 0.93


def test_a_busy_slice_is_priced_for_its_busiest_minutes_and_an_idle_one_is_nearly_free(pool):
    qps = sine_days(1, seed=2)[0]
    qps[:240] = 0.05 * PEAK_QPS
    balancer = search(pool, qps)
    load = loads(pool, balancer, qps)
    assert load.max() < 1.1
    uncharged = search(pool, qps, slices=6, penalty=1e-6)  # overload costs nearly nothing
    assert loads(pool, uncharged, qps).max() > 2.0
    assert balancer.prices[0].max() < 0.2 * balancer.prices[2:].min()


def test_the_search_is_seeded_and_refuses_impossible_settings(pool):
    qps = np.full(1440, 100.0)
    first, second, other_seed = (search(pool, qps, seed=s, rounds=2).prices.tolist() for s in (1, 1, 2))
    assert first == second != other_seed
    for bad in ({"slices": 0}, {"samples": 1}, {"elite": 1.0}, {"penalty": 0.0}, {"price_max": -1.0}):
        with pytest.raises(InputError):
            search(pool, qps, **bad)
    with pytest.raises(InputError, match="1440"):
        search(pool, qps[:10])
    for prices in ([[np.nan]], [[-1.0]], [1.0], np.ones((1441, 1))):
        with pytest.raises(InputError, match="slices"):
            SliceBalancer(prices)
    held = SliceBalancer([[3.0, 4.0]]).update(observe(pool, minute=float("nan"), prices=(1.0, 9.0)))
    assert held.tolist() == [1.0, 4.0]
