"""Allocation under prices against brute force, and a minute of service by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import allocate, degrade, serve_minute
from marca_env.traffic.clusters import ClusterModel, ClusterState
from marca_env.traffic.simulated_system import sample_arrivals
from marca_env.utils.errors import InputError


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3), st.floats(0, 5))
@settings(max_examples=60, deadline=None)
def test_allocate_is_the_best_of_all(seed, n_joint, n_clusters, price):
    rng = np.random.default_rng(seed)
    values, costs = rng.random((4, n_joint)), rng.random((4, n_joint, n_clusters))
    prices = np.full(n_clusters, price)
    score = values - costs @ prices
    chosen = allocate(values, costs, prices)
    np.testing.assert_allclose(score[np.arange(len(score)), chosen], score.max(axis=1), atol=1e-5)


def test_ties_go_to_the_cheapest():
    values = np.array([[1.0, 2.0, 2.0, 2.0]])
    costs = np.array([[[0.1, 0.1], [0.5, 0.5], [0.2, 0.2], [0.2, 0.2]]])
    assert allocate(values, costs, np.zeros(2)).tolist() == [2]
    assert allocate(values, costs, np.array([0.0, 100.0])).tolist() == [0]


def test_allocate_does_not_depend_on_the_chunks():
    rng = np.random.default_rng(0)
    values, costs = rng.random((700, 300), dtype=np.float32), rng.random((700, 300, 2), dtype=np.float32)
    together = allocate(values, costs, np.array([0.3, 0.7]))
    alone = [allocate(values[k : k + 1], costs[k : k + 1], np.array([0.3, 0.7]))[0] for k in range(0, 700, 37)]
    assert together[::37].tolist() == alone


@pytest.mark.parametrize("prices", [[-1.0, 0.0], [np.nan, 0.0], [1.0]])
def test_impossible_prices_are_refused(prices):
    with pytest.raises(InputError, match="prices"):
        allocate(np.zeros((1, 2)), np.zeros((1, 2, 2)), np.array(prices))


@pytest.mark.parametrize("table", ["values", "costs"])
def test_values_and_costs_that_are_nan_are_refused(table):
    """Without the check, argmax would choose the nan."""
    tables = {"values": np.ones((3, 4), np.float32), "costs": np.ones((3, 4, 2), np.float32)}
    tables[table][1, 2] = np.nan
    with pytest.raises(InputError, match="request 1: a value or cost is not finite"):
        allocate(**tables, prices=np.ones(2))


@pytest.fixture
def pool(exact_engine):
    return exact_engine.pool(64)


def test_a_minute_of_service_by_hand(tiny_scenario, exact_law, pool):
    clusters = ClusterModel(tiny_scenario)
    chosen = np.full(len(pool.states), tiny_scenario.n_joint_actions - 1)
    counts = np.zeros(len(pool.states), dtype=int)
    counts[[0, 3]] = 30, 60
    outcome, after = serve_minute(pool, chosen, counts, clusters, clusters.initial(), 60.0)
    top = np.array([[1, 2, 1, 2]])
    each = [exact_law.cost(top, exact_law.results(pool.states[[k]], top))[0] for k in (0, 3)]
    worth = [exact_law.predict(pool.states[[k]], top)[0] for k in (0, 3)]
    np.testing.assert_allclose(outcome.load, (30 * each[0] + 60 * each[1]) / 60, rtol=1e-5)
    assert outcome.outcomes["revenue"] == pytest.approx(30 * worth[0] + 60 * worth[1], rel=1e-5)
    assert (outcome.requests, outcome.qps, outcome.served_share) == (90, 1.5, 1.0)
    np.testing.assert_array_equal(outcome.equivalent, outcome.load)
    np.testing.assert_array_equal(after.degradation, 0)


def test_degradation_caps_options_and_counts_in_the_equivalent_load(tiny_scenario, pool):
    clusters = ClusterModel(tiny_scenario)
    chosen = np.full(len(pool.states), tiny_scenario.n_joint_actions - 1)
    counts = np.full(len(pool.states), 10)
    degraded = ClusterState(np.array([2, 0]), np.zeros(2))
    plain, _ = serve_minute(pool, chosen, counts, clusters, clusters.initial(), 60.0)
    capped, _ = serve_minute(pool, chosen, counts, clusters, degraded, 60.0)
    assert capped.load[0] < plain.load[0]
    assert capped.outcomes["revenue"] < plain.outcomes["revenue"]
    np.testing.assert_allclose(capped.equivalent, plain.load)  # f(D) is exactly what these requests were spared
    ran = tiny_scenario.joint_actions[degrade(tiny_scenario, chosen, np.array([2, 0]))[0]]
    assert ran.tolist() == [0, 1, 0, 2]  # half of each of retrieval's ranges, ranking untouched


def test_dropped_requests_earn_nothing(tiny_scenario, pool):
    clusters = ClusterModel(tiny_scenario)
    chosen = np.full(len(pool.states), tiny_scenario.n_joint_actions - 1)
    few = np.full(len(pool.states), 5)
    small, _ = serve_minute(pool, chosen, few, clusters, clusters.initial(), 60.0)
    large, _ = serve_minute(pool, chosen, few * 100, clusters, clusters.initial(), 60.0)
    assert small.served_share == 1.0
    assert large.served_share == pytest.approx(np.prod(1 - large.reading.dropped))
    assert large.served_share < 0.2
    assert large.outcomes["revenue"] == pytest.approx(100 * large.served_share * small.outcomes["revenue"])


def test_arrivals_come_from_the_current_window(tiny_scenario, pool):
    rng = np.random.default_rng(0)
    window = pool.states[:, tiny_scenario.feature_names.index("w")]
    for minute, expected in ((0, 0), (359, 0), (360, 1), (1439, 3)):
        counts = sample_arrivals(rng, pool, 40.0, 60.0, minute)
        assert counts[window != expected].sum() == 0
        assert counts.sum() == pytest.approx(2400, abs=300)
    assert sample_arrivals(rng, pool, 0.0, 60.0, 0).sum() == 0
    with pytest.raises(InputError, match="qps"):
        sample_arrivals(rng, pool, float("nan"), 60.0, 0)


def test_arrivals_follow_the_weights(tiny_scenario, pool):
    chances = pool.probabilities(0)
    counts = sum(sample_arrivals(np.random.default_rng(k), pool, 50.0, 60.0, 0) for k in range(40))
    np.testing.assert_allclose(counts / counts.sum(), chances, atol=0.01)
    assert chances.sum() == pytest.approx(1.0)


def test_a_pool_whose_tables_do_not_fit_is_refused(tiny_scenario, pool):
    with pytest.raises(InputError, match="costs"):
        RequestPool(tiny_scenario, pool.states, pool.outcomes, pool.costs[..., :1])
    with pytest.raises(InputError, match="revenue"):
        RequestPool(tiny_scenario, pool.states, {"revenue": pool.costs[..., 0].T}, pool.costs)


@pytest.mark.parametrize("weight", [0.0, np.nan, -1.0, np.inf])
def test_weights_that_draw_no_request_are_refused(pool, tiny_scenario, weight):
    with pytest.raises(InputError, match="pool weights"):
        RequestPool(tiny_scenario, pool.states, pool.outcomes, pool.costs, np.full(len(pool.states), weight))
