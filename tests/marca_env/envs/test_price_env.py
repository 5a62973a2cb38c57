"""Tests of the price environment: conformance, units, and the later cost of free computation."""

import dataclasses
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from marca_env.envs.price_env import BalancingEnv
from marca_env.traffic.allocation import allocate
from marca_env.traffic.workload import Traffic
from marca_env.utils.errors import InputError
from tests.helpers.factories import make_timed_engine

DAY = 50.0 * (0.6 - 0.4 * np.cos(2 * np.pi * np.arange(1440) / 1440))


@pytest.fixture
def balancing(exact_engine):
    return BalancingEnv(engine=exact_engine, traffic=DAY, render_mode="ansi")


def run(env, action, steps, seed=0):
    observations, infos = [env.reset(seed=seed)[0]], []
    for _ in range(steps):
        observation, reward, _, _, info = env.step(np.asarray(action))
        observations.append(observation)
        infos.append({**info, "reward": reward})
    return np.array(observations), infos


def test_gymnasium_checker_accepts_the_environment(exact_engine):
    env = gymnasium.make("marca_env/Balancing-v0", engine=exact_engine, traffic=DAY[:30], render_mode="ansi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.reset(seed=0)
    assert "cores" in env.render()


def test_episode_is_truncated_when_the_traffic_ends(exact_engine):
    env = BalancingEnv(engine=exact_engine, traffic=DAY[:5])
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]
    with pytest.raises(InputError, match=r"reset\(\)"):
        env.step(np.zeros(2))


def test_one_step_is_one_control_period(exact_engine):
    scenario = exact_engine.scenario.replace(control_period=4)
    env = BalancingEnv(pool=dataclasses.replace(exact_engine.pool(48), scenario=scenario), traffic=DAY[:10])
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[3] for _ in range(3)] == [False, False, True]


def test_reward_equals_the_terms_in_info(balancing):
    _, infos = run(balancing, [0.1, 0.1], 900)
    assert max(i["penalty"] for i in infos) > 0
    for info in infos:
        over = np.maximum(0.0, info["load"] / balancing.scenario.budgets - 1)
        np.testing.assert_allclose(info["overload"], over)
        assert info["penalty"] == pytest.approx(over.sum())
        assert info["reward"] == pytest.approx(info["revenue"] / balancing.reference - info["penalty"])
    assert max(i["revenue"] for i in infos) / balancing.reference < 1.2


def test_observation_is_the_scaled_control_observation(balancing):
    observations, infos = run(balancing, [0.3, 0.5], 700)
    control = balancing.control
    np.testing.assert_allclose(observations[-1][:2], control.load / control.budget, rtol=1e-5)
    np.testing.assert_allclose(observations[-1][2:4], control.degradation / 3, rtol=1e-6)
    np.testing.assert_allclose(observations[-1][6:8], [0.3, 0.5], rtol=1e-5)
    angle = 2 * np.pi * 700 / 1440
    np.testing.assert_allclose(observations[-1][8:], [control.qps / 50.0, np.sin(angle), np.cos(angle)], rtol=1e-5)
    np.testing.assert_allclose(control.load, infos[-1]["load"])
    assert control.minute == 700


def test_prices_of_and_action_of_are_inverse(balancing):
    action = np.array([0.25, 1.0])
    prices = balancing.prices_of(action)
    np.testing.assert_allclose(prices, balancing.price_max * [0.25**3, 1.0])
    np.testing.assert_allclose(balancing.action_of(prices), action, rtol=1e-6)
    np.testing.assert_array_equal(balancing.prices_of(np.array([-1.0, 2.0])), [0.0, balancing.price_max[1]])


def test_highest_price_brings_the_load_near_its_minimum(balancing):
    pool = balancing.pool
    rows, values = np.arange(len(pool.states)), pool.outcomes["revenue"]
    free, dear = (
        pool.weights @ pool.costs[rows, allocate(values, pool.costs, prices)]
        for prices in (np.zeros(2), balancing.price_max)
    )
    least = pool.weights @ pool.costs.min(axis=1)
    assert np.all(dear <= least + 0.06 * (free - least))


def test_free_computation_at_the_peak_earns_less_later(exact_engine):
    """At the peak, free computation earns more at first; then overload degrades the clusters and it earns less."""
    peak = np.full(60, 60.0)
    greedy = run(BalancingEnv(engine=exact_engine, traffic=peak), [0.0, 0.0], 60)[1]
    thrifty = run(BalancingEnv(engine=exact_engine, traffic=peak), [0.57, 0.57], 60)[1]
    assert greedy[0]["revenue"] > thrifty[0]["revenue"]
    assert max(i["degradation"].max() for i in greedy) > 0
    assert max(i["degradation"].max() for i in thrifty) == 0
    assert sum(i["reward"] for i in greedy) < sum(i["reward"] for i in thrifty)
    assert np.mean([i["revenue"] for i in greedy[1:]]) < np.mean([i["revenue"] for i in thrifty[1:]])


def test_same_seed_repeats_the_day(balancing):
    first, second, third = (run(balancing, [0.4, 0.4], 50, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != third)


def test_trace_keeps_its_time_of_day(exact_engine):
    observations, infos = run(BalancingEnv(engine=exact_engine, traffic=Traffic("noon", DAY[:3], 720)), [0.5, 0.5], 3)
    np.testing.assert_allclose(observations[0, 9:], [0.0, -1.0], atol=1e-6)
    assert all(info["revenue"] > 0 for info in infos)


def test_traffic_is_drawn_if_none_is_given(exact_engine):
    env = BalancingEnv(engine=exact_engine, minutes=20)
    observations, _ = run(env, [0.5, 0.5], 20)
    again, _ = run(env, [0.5, 0.5], 20)
    np.testing.assert_array_equal(observations, again)
    assert observations[1:, 8].min() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 0}, "minutes is 0"),
        ({"penalty": -1.0}, "penalty is -1"),
        ({"price_max": [1.0, 2.0, 3.0]}, "one per cluster"),
        ({"price_max": 0.0}, "positive"),
        ({"price_max": "dear"}, "price_max is 'dear'; pass a number"),
        ({"traffic": ["a"]}, "traffic is .*; pass a Traffic"),
        ({"pool_size": 0}, "pool_size is 0"),
        ({"traffic": [1.0, -1.0]}, "non-negative"),
        ({"render_mode": "humn"}, "did you mean .human."),
    ],
)
def test_wrong_options_are_named_in_the_error(exact_engine, options, message):
    with pytest.raises(InputError, match=message):
        BalancingEnv(engine=exact_engine, **{"traffic": DAY, **options})


@pytest.mark.parametrize("action", [[0.5], [np.nan, 0.0]])
def test_wrong_actions_raise_and_name_the_clusters(balancing, action):
    balancing.reset(seed=0)
    with pytest.raises(InputError, match="retrieval, ranking"):
        balancing.step(np.array(action))


def test_rgb_array_is_720_pixels_wide(exact_engine):
    env = BalancingEnv(engine=exact_engine, traffic=DAY, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape[1:] == (720, 3)


def test_free_computation_makes_requests_late(tiny_scenario, exact_law):
    """With a latency limit the info shows how long requests take; without one it does not."""
    timed = BalancingEnv(engine=make_timed_engine(tiny_scenario, exact_law, 0.02), traffic=DAY)
    _, free = run(timed, np.zeros(2), 4)
    _, dear = run(timed, np.ones(2), 4)
    assert dear[-1]["late"] < free[-1]["late"]
    assert dear[-1]["latency_p50"] < free[-1]["latency_p50"] < free[-1]["latency_p99"]
