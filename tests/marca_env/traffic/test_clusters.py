"""Cluster dynamics against numbers worked out by hand."""

import numpy as np
import pytest

from marca_env.traffic.clusters import ClusterModel, ClusterState
from marca_env.utils.errors import InputError


@pytest.fixture
def clusters(tiny_scenario):
    """Return clusters of cores 1.0 and 1.2, budgets 0.6 and 0.8, trigger 1.05, release 0.98, time-out 10 s."""
    return ClusterModel(tiny_scenario)


def test_light_load_is_served_at_once(clusters):
    demand = np.array([0.3, 0.4])
    state, reading = clusters.step(clusters.initial(), demand, demand, 60.0)
    np.testing.assert_allclose(reading.served, demand)
    np.testing.assert_array_equal(reading.dropped, 0.0)
    np.testing.assert_array_equal(state.waiting_work, 0.0)
    np.testing.assert_array_equal(state.degradation, 0)


def test_work_beyond_the_cores_waits_and_is_served_later(clusters):
    # cluster 0: 1.1 core-seconds/s offered for 60 s to one core: 66 − 60 = 6 core-seconds wait (limit 10)
    state, reading = clusters.step(clusters.initial(), np.array([1.1, 0.0]), np.array([1.1, 0.0]), 60.0)
    np.testing.assert_allclose(state.waiting_work, [6.0, 0.0])
    np.testing.assert_allclose(reading.served, [1.0, 0.0])
    state, reading = clusters.step(state, np.array([0.5, 0.0]), np.array([0.5, 0.0]), 60.0)
    np.testing.assert_allclose(state.waiting_work, 0.0, atol=1e-12)
    np.testing.assert_allclose(reading.served, [0.6, 0.0])  # 30 + 6 core-seconds in 60 s


def test_backlog_beyond_the_timeout_is_dropped(clusters):
    # 1.5 × 60 = 90 offered, 60 served, 30 wait, 10 may: 20 of 90 dropped
    state, reading = clusters.step(clusters.initial(), np.array([1.5, 0.1]), np.array([1.5, 0.1]), 60.0)
    np.testing.assert_allclose(state.waiting_work, [10.0, 0.0])
    np.testing.assert_allclose(reading.dropped, [20 / 90, 0.0])


def test_degradation_rises_and_falls_with_hysteresis(clusters):
    def level(start, demand, equivalent):
        before = ClusterState(np.array([start, 0]), np.zeros(2))
        after, _ = clusters.step(before, np.array([demand, 0.0]), np.array([equivalent, 0.0]), 60.0)
        return after.degradation[0]

    assert level(0, 0.613, 0.613) == 1  # above 1.02 × 0.6 = 0.612
    assert level(0, 0.611, 0.611) == 0
    assert level(1, 0.50, 0.60) == 1  # undegraded it would not fit: 0.98 × 0.6 = 0.588
    assert level(1, 0.50, 0.58) == 0
    assert level(3, 5.0, 9.0) == 3  # the deepest level
    assert level(0, 0.0, 0.0) == 0


@pytest.mark.parametrize("demand", [(0.2, -0.1), (0.2, np.nan), (0.2,)])
def test_impossible_demand_is_refused(clusters, demand):
    with pytest.raises(InputError, match="demand"):
        clusters.step(clusters.initial(), np.array(demand), np.zeros(2), 60.0)
    with pytest.raises(InputError, match="seconds"):
        clusters.step(clusters.initial(), np.zeros(2), np.zeros(2), 0.0)


def test_offered_work_is_served_dropped_or_still_waiting(clusters):
    rng = np.random.default_rng(0)
    state, offered, served, dropped = clusters.initial(), np.zeros(2), np.zeros(2), np.zeros(2)
    for _ in range(200):
        demand = rng.gamma(2.0, 0.6, 2)
        state, reading = clusters.step(state, demand, demand, 60.0)
        assert np.all(reading.served <= clusters.cores + 1e-12)
        offered += 60 * demand
        served += 60 * reading.served
        dropped += 60 * demand * reading.dropped
    np.testing.assert_allclose(offered, served + dropped + state.waiting_work)
    assert np.all(dropped > 0)


def test_the_observed_backlog_is_in_seconds(clusters):
    state = ClusterState(np.array([1, 0]), np.array([5.0, 6.0]))
    observation = clusters.observe(61, 40.0, np.array([0.7, 0.1]), state, np.array([1.0, 2.0]))
    np.testing.assert_allclose(observation.backlog, [5.0, 5.0])
    assert (observation.minute, observation.qps) == (61, 40.0)
    np.testing.assert_array_equal(observation.budget, [0.6, 0.8])
