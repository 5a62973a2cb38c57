"""Tests of request windows: requests load the clusters, and the clusters affect and show to later requests."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test

import marca_env
from marca_env.envs.batched_env import batched_env
from marca_env.envs.request_window import RequestWindow, WindowClusters
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.clusters import ClusterModel, ClusterState
from marca_env.utils.errors import InputError
from tests.helpers.factories import ExactLaw, make_timed_engine

EXPENSIVE, CHEAP = (1, 2, 1, 2), (0, 0, 0, 0)
STEEP = RequestWindow(requests=20, seconds=60.0, traffic=(2.0,))
"""Twice the rate at which the most expensive options just fit."""


def play(engine: Engine, policy, window=STEEP, n: int = 8, seed: int = 0, **options):
    """Return the steps that end a request; ``policy(k, env)`` gives the joint action of request k."""
    env = batched_env(n, engine=engine, window=window, **options)
    step = env.reset(seed=seed)
    ended, rewards = [], []
    for t in range(env.max_steps):
        joint = policy(t // env.encoder.n_turns, env)
        waits = {agent: np.full(n, size - 1) for agent, size in env.action_sizes.items()}
        step = env.step({**waits, str(env.agent_on_turn): np.full(n, joint[env.turn])})
        rewards.append(step.reward)
        assert step.terminated.all() == (t == env.max_steps - 1)
        if step.infos:
            ended.append(step)
    return env, ended, np.array(rewards)


def test_expensive_options_earn_more_first_and_less_in_total(exact_engine: Engine) -> None:
    """Expensive options earn more on the first request; then degradation, backlog and drops cost more than that."""
    _, greedy, _ = play(exact_engine, lambda k, env: EXPENSIVE)
    _, thrifty, _ = play(exact_engine, lambda k, env: (0, 0, 1, 0))
    earned = [np.array([s.infos["revenue"].mean() for s in steps]) for steps in (greedy, thrifty)]
    assert earned[0][0] > earned[1][0]
    assert earned[0].sum() < earned[1].sum()
    assert max(s.infos["degradation"].max() for s in greedy) == 3
    assert max(s.infos["degradation"].max() for s in thrifty) == 0
    assert max(s.infos["dropped"].max() for s in greedy) > 0


@pytest.mark.parametrize("seed", range(5))
def test_first_request_equals_that_of_a_single_request_episode(exact_engine: Engine, seed: int) -> None:
    """Nothing is degraded yet: request, cost and results are equal; revenue is net of dropped requests."""
    _, ended, _ = play(exact_engine, lambda k, env: EXPENSIVE, n=1, seed=seed)
    env = batched_env(1, engine=exact_engine)
    env.reset(seed=seed)
    for t in range(4):
        waits = {agent: np.full(1, size - 1) for agent, size in env.action_sizes.items()}
        last = env.step({**waits, str(env.agent_on_turn): np.full(1, EXPENSIVE[t])})
    for name in ("cost", "results"):
        np.testing.assert_array_equal(ended[0].infos[name], last.infos[name])
    served = 1.0 - ended[0].infos["dropped"]
    np.testing.assert_allclose(ended[0].infos["revenue"], last.infos["revenue"] * served, rtol=1e-5)


def test_clusters_follow_the_cluster_model(exact_engine: Engine, exact_law) -> None:
    """Each sub-environment alone, simulated with the cluster model, gives the same states."""
    env, ended, _ = play(exact_engine, lambda k, env: EXPENSIVE if k % 4 else CHEAP, n=3)
    scenario, states = exact_engine.scenario, exact_engine.sample_states(np.random.default_rng(0).spawn(2)[0], 60)
    model = ClusterModel(scenario)
    for b in range(3):
        state = model.initial()
        for k, step in enumerate(ended):
            np.testing.assert_array_equal(step.infos["degradation"][b], state.degradation)
            request, actions = states[20 * b + k][None], np.array([EXPENSIVE if k % 4 else CHEAP])
            undegraded = exact_law.cost(actions, exact_law.results(request, actions))[0].astype(float)
            qps = 2.0 * scenario.peak_qps
            state, reading = model.step(state, step.infos["cost"][b].astype(float) * qps, undegraded * qps, 60.0)
            np.testing.assert_allclose(step.infos["load"][b], reading.load)
            np.testing.assert_allclose(step.infos["backlog"][b], state.waiting_work / scenario.cores)
            np.testing.assert_allclose(step.infos["dropped"][b], 1.0 - np.prod(1.0 - reading.dropped), atol=1e-12)
    assert env.turn == 4


def test_degraded_options_equal_those_of_the_scenario(exact_engine: Engine) -> None:
    scenario = exact_engine.scenario
    clusters = WindowClusters(scenario, STEEP, 36, np.zeros(2))
    joint = scenario.joint_actions
    for levels in ((0, 0), (1, 0), (0, 2), (3, 3)):
        clusters.state = ClusterState(np.tile(levels, (36, 1)), np.zeros((36, 2)))
        expected = np.arange(36)
        for g, level in enumerate(levels):
            expected = scenario.degraded(g, level)[expected]
        np.testing.assert_array_equal(scenario.joint_index(clusters.degrade(joint)), expected)


def test_agents_observe_the_clusters(exact_engine: Engine) -> None:
    env, _, _ = play(exact_engine, lambda k, env: EXPENSIVE, window=RequestWindow(requests=3, price_rate=2.0))
    clusters = env.clusters.observe()  # type: ignore[union-attr]
    layout = env.encoder._state_layout
    step = env.encoder.encode(env.states, env.actions, np.zeros((8, 3)), 0, env.prices, clusters)
    np.testing.assert_array_equal(step[2][:, layout.clusters : layout.prices], clusters)
    assert clusters[:, -1].tolist() == [1.0] * 8
    load = env.clusters.load / exact_engine.scenario.budgets  # type: ignore[union-attr]
    np.testing.assert_allclose(clusters[:, :2], np.minimum(load, 4.0), rtol=1e-6)
    plain = batched_env(8, engine=exact_engine)
    assert env.state_size == plain.state_size + 7
    assert env.max_steps == 3 * plain.max_steps


def test_prices_rise_and_fall_with_the_load(exact_engine: Engine) -> None:
    window = RequestWindow(requests=6, traffic=(2.0,), price_rate=0.5)
    _, dear, _ = play(exact_engine, lambda k, env: EXPENSIVE, window, prices=[1.0, 1.0])
    prices = np.array([s.infos["prices"] for s in dear])
    assert (np.diff(prices, axis=0) > 0).all()
    _, cheap, _ = play(exact_engine, lambda k, env: CHEAP, window, prices=[1.0, 1.0])
    assert (np.array([s.infos["prices"] for s in cheap])[-1] < 1.0).all()  # the cheapest options fit at twice the rate
    _, fixed, _ = play(exact_engine, lambda k, env: EXPENSIVE, RequestWindow(requests=6), prices=[1.0, 2.0])
    assert (fixed[-1].infos["prices"] == [1.0, 2.0]).all()


def test_lagrangian_uses_the_prices_in_force_and_equals_its_terms(exact_engine: Engine) -> None:
    options = {"window": RequestWindow(requests=5, price_rate=1.0), "prices": [1.0, 1.0], "reward": "lagrangian"}
    _, ended, rewards = play(exact_engine, lambda k, env: EXPENSIVE, **options)
    per_request = rewards.reshape(5, 4, 8)
    assert not per_request[:, :3].any()
    price = np.ones((8, 2))
    for k, step in enumerate(ended):
        computation = (step.infos["cost"] * price).sum(axis=1)
        np.testing.assert_allclose(step.infos["computation"], computation, rtol=1e-6)
        np.testing.assert_allclose(per_request[k, 3], step.infos["revenue"] - computation, rtol=1e-4, atol=1e-6)
        price = step.infos["prices"]


def test_reward_callable_gets_the_prices_of_each_sub_environment(exact_engine: Engine) -> None:
    price_shapes = []

    def reward(outcome, prices):
        price_shapes.append(prices.shape)
        return outcome.revenue - 10.0 * outcome.cost.sum(axis=1)

    play(exact_engine, lambda k, env: CHEAP, RequestWindow(requests=2), reward=reward)
    assert price_shapes == [(8, 2), (8, 2)]


def test_load_follows_the_traffic_pattern(exact_engine: Engine) -> None:
    _, ended, _ = play(exact_engine, lambda k, env: CHEAP, RequestWindow(requests=6, traffic=(0.5, 2.0)))
    load = np.array([s.infos["load"].sum(axis=1) / s.infos["cost"].sum(axis=1) for s in ended])
    np.testing.assert_allclose(load[::2], 0.5 * exact_engine.scenario.peak_qps, rtol=1e-5)
    np.testing.assert_allclose(load[1::2], 2.0 * exact_engine.scenario.peak_qps, rtol=1e-5)


def test_all_views_give_the_same_rewards_and_infos(exact_engine: Engine) -> None:
    options = {"engine": exact_engine, "window": {"requests": 3, "price_rate": 1.0}, "prices": [1.0, 1.0]}
    _, ended, rewards = play(exact_engine, lambda k, env: EXPENSIVE, options["window"], n=1, seed=5, prices=[1.0, 1.0])
    single = gymnasium.make("marca_env/Recommender-v0", disable_env_checker=True, **options).unwrapped
    parallel, aec = marca_env.parallel_env(**options), marca_env.env(**options)  # type: ignore[arg-type]
    single.reset(seed=5)
    parallel.reset(seed=5)
    aec.reset(seed=5)
    for t in range(12):
        action = EXPENSIVE[t % 4]
        _, reward, terminated, _, info = single.step(action)
        waits = {agent: parallel.action_space(agent).n - 1 for agent in parallel.possible_agents}
        agent = aec.agent_selection
        _, team, _, _, infos = parallel.step({**waits, agent: action})
        aec.step(action)
        assert reward == team[agent] == aec.rewards[agent] == rewards[t, 0]
        assert terminated == (t == 11)
        for each_info in (info, infos[agent], aec.infos[agent]):
            assert ("load" in each_info) == (t % 4 == 3)
        if t % 4 == 3:
            load = ended[t // 4].infos["load"][0].tolist()
            assert info["load"] == infos[agent]["load"] == dict(zip(("retrieval", "ranking"), load, strict=True))
    assert parallel.agents == []
    with pytest.raises(InputError, match="call reset"):
        single.step(0)


def test_all_views_conform_to_their_libraries(exact_engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"engine": exact_engine, "window": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        api_test(marca_env.env(**options), num_cycles=40)  # type: ignore[arg-type]
        parallel_api_test(marca_env.parallel_env(**options), num_cycles=40)  # type: ignore[arg-type]
        check_env(gymnasium.make("marca_env/Recommender-v0", **options).unwrapped)


def test_frame_shows_load_backlog_and_degraded_options(exact_engine: Engine) -> None:
    env = marca_env.parallel_env(engine=exact_engine, window={"requests": 10, "traffic": [2.0]}, render_mode="ansi")
    env.reset(seed=0)
    for _ in range(5):
        for action in EXPENSIVE:
            waits = {agent: env.action_space(agent).n - 1 for agent in env.agents}
            *_, infos = env.step({**waits, str(env._core.agent_on_turn): action})
    frame = env.render()
    info = infos["retrieval"]
    assert "request 5 of 10" in frame
    assert f"{info['load']['ranking']:6.2f} of 0.80 cores" in frame
    assert f"backlog {info['backlog']['ranking']:.1f} s" in frame
    assert "truncation=5" in frame  # degraded


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (0, "window.requests is 0"),
        ({"reqests": 3}, "did you mean 'requests'"),
        ({"seconds": 0.0}, "window.seconds is 0.0"),
        ({"price_rate": -1.0}, "window.price_rate is -1.0"),
        ({"traffic": []}, "window.traffic"),
        ({"traffic": [1.0, -1.0]}, "not negative"),
        ("long", "window is 'long'; pass a RequestWindow or an integer"),
    ],
)
def test_impossible_windows_raise(exact_engine: Engine, window: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        marca_env.batched_env(2, engine=exact_engine, window=window)  # type: ignore[arg-type]


def test_load_makes_requests_late(tiny_scenario: Scenario, exact_law: ExactLaw) -> None:
    """Thrifty requests are on time; expensive ones queue behind each other, and the agents see the time used."""
    engine = make_timed_engine(tiny_scenario, exact_law, 0.05)
    env, greedy, _ = play(engine, lambda k, env: EXPENSIVE)
    _, thrifty, _ = play(engine, lambda k, env: (0, 0, 1, 0))
    late = [np.array([s.infos["late"].mean() for s in steps]) for steps in (greedy, thrifty)]
    latency = [np.array([s.infos["latency"].mean() for s in steps]) for steps in (greedy, thrifty)]
    assert late[0].max() > 0.9 > 0.2 > late[1].max()
    assert latency[0].max() > 1.0 > latency[1].max() > latency[1][0] * 0.99
    assert set(play(engine, lambda k, env: CHEAP, window=None)[1][0].infos) >= {"latency", "late"}
    unlimited, steps, _ = play(Engine(tiny_scenario, exact_law, exact_law, engine.population), lambda k, env: CHEAP)
    assert "late" not in steps[0].infos
    assert env.observation_sizes == {agent: n + 1 for agent, n in unlimited.observation_sizes.items()}
    assert env.state_size == unlimited.state_size + 1
