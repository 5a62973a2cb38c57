"""Fleets: loads of shared and own clusters by hand, what each site observes, and every view of a fleet."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test

import marca_env
from marca_env.envs.batched_env import IllegalActionError, batched_env
from marca_env.envs.fleet_env import BatchedFleet
from marca_env.envs.gym_env import RecommenderEnv
from marca_env.models.engine import Engine, get_engine
from marca_env.models.population import Population
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, UnknownAgentError


def fleet(num_envs: int, scenario: Scenario | str = "fleet-v0", **options: object) -> BatchedFleet:
    made = batched_env(num_envs, scenario, **options)
    assert isinstance(made, BatchedFleet)
    return made


def everywhere(env: BatchedFleet, option: int) -> dict[str, np.ndarray]:
    return {agent: np.full(env.num_envs, option) for agent in env.agents}


def test_shared_cluster_gets_the_sum_of_the_loads_and_the_team_the_sum_of_the_revenues() -> None:
    env = fleet(4)
    env.reset(seed=3)
    options = np.array([0, 1, 2, 3, 2, 1, 0, 3])
    states = env.states.copy()
    step = env.step({agent: np.full(4, options[k]) for k, agent in enumerate(env.agents)})
    shares = env.engine.population.site_shares(env.scenario)
    load, revenue = np.zeros(4), np.zeros(4)
    for k, option in enumerate(options):
        _, cost, expected = env.engine.evaluate(states[:, k], np.full((4, 1), option))
        assert (states[:, k, env.scenario.feature_names.index("i")] == k).all()
        load += 0.4 * env.scenario.peak_qps * shares[k] * cost[:, 0]
        revenue += expected * 8 * shares[k]
    np.testing.assert_allclose(step.infos["load"][:, 0], load, rtol=1e-5)
    np.testing.assert_allclose(step.reward, revenue, rtol=1e-5)
    assert (load < env.scenario.budgets[0]).all()
    assert (step.infos["dropped"] == 0).all()


def test_too_much_load_degrades_all_sites_and_drops_at_all_of_them() -> None:
    env = fleet(2, window={"requests": 6, "seconds": 60.0})
    env.reset(seed=1)
    first = env.step(everywhere(env, 5))
    work = first.infos["load"][:, 0] * 60.0
    cores, timeout = env.scenario.cores[0], env.scenario.protection.timeout
    dropped = np.maximum(0.0, work - cores * 60.0 - timeout * cores) / work
    np.testing.assert_allclose(first.infos["dropped"], dropped, atol=1e-9)
    assert (dropped > 0.1).all()
    assert (first.infos["degradation"] == 0).all()
    second = env.step(everywhere(env, 5))
    assert (second.infos["degradation"] == 1).all()
    assert (env.executed_actions == 3).all()  # ⌊0.75 · 5⌋: the third option of every site runs instead of the fifth


def test_own_clusters_get_the_load_of_their_site_alone() -> None:
    scenario = Scenario.load("data-centres-v0").replace(agent_kind="site")
    env = fleet(3, scenario)
    assert env.agents == ("site_0", "site_1", "site_2")
    assert env.max_steps == 3
    env.reset(seed=5)
    for option in (1, 2, 0):
        step = env.step({"site_0": np.full(3, option), "site_1": np.zeros(3, int), "site_2": np.zeros(3, int)})
    changed = step.infos["load"]
    env.reset(seed=5)
    for _ in range(3):
        step = env.step(everywhere(env, 0))
    differs = ~np.isclose(changed, step.infos["load"])
    np.testing.assert_array_equal(differs.any(axis=0), scenario.site_clusters[0])


def test_a_site_observes_its_own_request_and_the_clusters_only() -> None:
    env = fleet(64)
    step = env.reset(seed=0)
    other = fleet(64)
    other.reset(seed=0)
    other.states[:, 3] = env.states[::-1, 3]  # another request of one site
    changed = other._observe(other._current_results())
    for agent in env.agents:
        same = (changed.observations[agent] == step.observations[agent]).all()
        assert same == (agent != "site_3")
    assert (changed.state != step.state).any()
    space = env.encoder.observation_space("site_3")["observation"]
    assert space.contains(step.observations["site_3"][0])
    assert env.encoder.state_space().contains(step.state[0])
    assert step.is_on_turn("site_5").all()
    assert step.masks["site_5"].all()


def test_a_window_of_a_batch_equals_that_of_a_single_environment() -> None:
    together, alone = fleet(3), fleet(1)
    step, one = together.reset(seed=[5, 6, 7]), alone.reset(seed=6)
    for t in range(12):
        options = {agent: np.full(3, (t + k) % 6) for k, agent in enumerate(together.agents)}
        np.testing.assert_array_equal(step.state[1], one.state[0])
        step, one = together.step(options), alone.step({agent: o[:1] for agent, o in options.items()})
        assert step.reward[1] == one.reward[0]
    assert step.terminated.all()
    assert one.terminated.all()
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        together.step(everywhere(together, 0))


def test_prices_follow_the_load_and_enter_the_reward() -> None:
    window = {"requests": 3, "price_rate": 0.01, "traffic": [1.0]}
    env = fleet(2, window=window, prices=[0.001], reward="lagrangian")
    env.reset(seed=2)
    step = env.step(everywhere(env, 4))
    expected = 0.001 + 0.01 * (step.infos["load"] / env.scenario.budgets - 1.0)
    np.testing.assert_allclose(step.infos["prices"], expected, rtol=1e-6)
    np.testing.assert_allclose(step.reward, step.infos["revenue"] - 0.001 * step.infos["cost"][:, 0], rtol=1e-5)


def test_wrong_actions_and_scenarios_are_one_line() -> None:
    env = fleet(2, on_illegal="error")
    env.reset(seed=0)
    with pytest.raises(IllegalActionError, match=r"'site_2' took action 6 .* legal are 0 to 5"):
        env.step({**everywhere(env, 0), "site_2": np.array([1, 6])})
    with pytest.raises(InputError, match="no action of agent 'site_7'"):
        env.step({agent: np.zeros(2, int) for agent in env.agents[:-1]})
    with pytest.raises(UnknownAgentError, match="site_8"):
        env.step({**everywhere(env, 0), "site_8": np.zeros(2, int)})
    with pytest.raises(InputError, match="agent_kind is 'site', but the scenario has no sites"):
        Scenario.load("bursty-v0").replace(agent_kind="site")
    engine = get_engine("fleet-v0")
    kept = engine.population.states[:, 2] != 4
    emptied = Population(engine.population.states[kept], engine.population.counts[kept])
    without = Engine(engine.scenario, engine.cost_model, engine.revenue_model, emptied)
    with pytest.raises(InputError, match="no request of the population has site i = 4"):
        fleet(1, engine=without)
    with pytest.raises(InputError, match="are its stages"):
        gymnasium.make("marca_env/Fleet-v0", scenario="bursty-v0")


def test_views_of_a_fleet_agree_and_pass_the_tests_of_their_libraries() -> None:
    parallel, central = marca_env.parallel_env("fleet-v0", render_mode="ansi"), gymnasium.make("marca_env/Fleet-v0")
    parallel.reset(seed=4)
    state, _ = central.reset(seed=4)
    np.testing.assert_array_equal(parallel.state(), state)
    options = [0, 1, 2, 3, 4, 5, 0, 1]
    _, rewards, _, _, infos = parallel.step(dict(zip(parallel.agents, options, strict=True)))
    state, reward, *_, info = central.step(np.array(options))
    assert rewards["site_0"] == rewards["site_7"] == reward == pytest.approx(info["revenue"])
    assert sum(i["site_revenue"] for i in infos.values()) == pytest.approx(reward, rel=0.05)  # traffic is almost equal
    frame = parallel.render()
    assert "site_7" in frame
    assert "slice 1 of 12" in frame
    assert "pool" in frame
    check_env(central.unwrapped, skip_render_check=True)
    parallel_api_test(marca_env.parallel_env("fleet-v0"), 30)
    api_test(marca_env.env("fleet-v0"), 30)


def test_views_of_stages_take_single_requests_of_one_site() -> None:
    env = RecommenderEnv("fleet-v0")
    env.reset(seed=1)
    assert env.max_steps == 12
    assert env.step(2)[1] > 0
