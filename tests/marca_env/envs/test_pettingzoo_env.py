"""Tests of the environments of requests: conformance, and the same trajectory in each of them."""

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

import marca_env
from marca_env.envs.batched_env import IllegalActionError
from marca_env.envs.gym_env import RecommenderEnv
from marca_env.envs.price_env import BalancingEnv
from marca_env.utils.errors import InputError

EXPECTED_WARNINGS = {
    "Agents have different observation space sizes": "stages have different observations",
    "Observations are different shapes": "stages have different observations",
    "Observation is not a NumPy array": "a Dict with an action_mask is PettingZoo's own convention",
    "Observation space for each agent probably should be gymnasium.spaces.box": "the same Dict",
    "We recommend agents to be named in the format": "agents have the names of their stages",
}


def choices(scenario, n, seed=0):
    return np.random.default_rng(seed).integers(0, scenario.action_shape, (n, len(scenario.decisions)))


def play_aec(engine, joint, seed, **options):
    env = marca_env.env(engine=engine, **options)
    env.reset(seed=seed)
    trajectory, turn = [], 0
    for agent in env.agent_iter():
        observation, reward, done, _, info = env.last()
        if done:
            trajectory.append((agent, reward, info["cost"], env.state()))
            env.step(None)
        else:
            trajectory.append((agent, observation["observation"], env.state()))
            env.step(joint[turn])
            turn += 1
    return trajectory


def play_batched(engine, joints, seed, **options):
    env = marca_env.batched_env(len(joints), engine=engine, **options)
    steps = [env.reset(seed=seed)]
    for turn in range(env.max_steps):
        waits = {agent: np.full(len(joints), n - 1) for agent, n in env.action_sizes.items()}
        steps.append(env.step({**waits, env.agent_on_turn: joints[:, turn]}))
    return env, steps


# -- conformance -------------------------------------------------------------------------------------------
def unexplained(caught):
    return [str(w.message) for w in caught if not any(str(w.message).startswith(known) for known in EXPECTED_WARNINGS)]


def test_pettingzoo_tests_pass_for_both_environments(tiny_engine, capsys):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api_test(marca_env.env(engine=tiny_engine), num_cycles=60)
        parallel_api_test(marca_env.parallel_env(engine=tiny_engine), num_cycles=60)
        seed_test(lambda: marca_env.env(engine=tiny_engine))
        # this one samples without the masks
        parallel_seed_test(lambda: marca_env.parallel_env(engine=tiny_engine))
    assert unexplained(caught) == []


@pytest.mark.slow
def test_shipped_environments_pass_the_conformance_tests(capsys):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api_test(marca_env.env(), num_cycles=30)
        parallel_api_test(marca_env.parallel_env(), num_cycles=30)
        parallel_seed_test(marca_env.parallel_env, num_cycles=10)
        for name in ("marca_env/Recommender-v0", "marca_env/Balancing-v0"):
            check_env(gymnasium.make(name).unwrapped)
    assert unexplained(caught) == []


def test_gymnasium_checker_accepts_the_single_agent_environment(tiny_engine):
    env = gymnasium.make("marca_env/Recommender-v0", engine=tiny_engine, render_mode="ansi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    assert env.reset(seed=0)[0].shape == env.observation_space.shape


# -- one episode, four views -------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_views_give_the_same_trajectory(tiny_engine, seed):
    scenario = tiny_engine.scenario
    joint = choices(scenario, 1, seed)
    prices = [1.0, 2.0]
    core, steps = play_batched(tiny_engine, joint, seed, prices=prices, reward="lagrangian")
    aec = play_aec(tiny_engine, joint[0], seed, prices=prices, reward="lagrangian")
    parallel = marca_env.parallel_env(engine=tiny_engine, prices=prices, reward="lagrangian")
    single = RecommenderEnv(engine=tiny_engine, prices=prices, reward="lagrangian")
    observations, _ = parallel.reset(seed=seed)
    alone, _ = single.reset(seed=seed)
    for turn in range(core.max_steps):
        agent = core.encoder.turn_agent[turn]
        assert aec[turn][0] == agent
        np.testing.assert_array_equal(aec[turn][1], steps[turn].observations[agent][0])
        np.testing.assert_array_equal(observations[agent]["observation"], steps[turn].observations[agent][0])
        for state in (aec[turn][2], parallel.state(), alone):
            np.testing.assert_array_equal(state, steps[turn].state[0])
        waits = {name: n - 1 for name, n in core.action_sizes.items()}
        observations, rewards, done, _, infos = parallel.step({**waits, agent: joint[0, turn]})
        alone, reward, terminated, truncated, info = single.step(joint[0, turn])
        assert not truncated
        assert terminated == all(done.values()) == (turn == core.max_steps - 1)
        assert set(rewards.values()) == {reward} == {float(steps[turn + 1].reward[0])}
    assert [name for name, *_ in aec[-2:]] == ["retrieval", "pre_ranking"]
    assert all(entry[1] == reward for entry in aec[-2:])  # each agent gets the whole team reward
    cost = dict(zip(scenario.cluster_names, steps[-1].infos["cost"][0].tolist(), strict=True))
    assert aec[-1][2] == infos["retrieval"]["cost"] == info["cost"] == cost
    assert reward == pytest.approx(info["revenue"] - info["computation"], rel=1e-5)


def test_request_k_of_a_batch_equals_episode_k_of_a_single_environment(tiny_engine):
    joints = choices(tiny_engine.scenario, 30)
    _, steps = play_batched(tiny_engine, joints, seed=4)
    env = RecommenderEnv(engine=tiny_engine)
    for k in range(30):
        env.reset(seed=4 if k == 0 else None)
        for action in joints[k]:
            state, reward, *_ = env.step(action)
        assert reward == pytest.approx(steps[-1].reward[k], rel=1e-5)
        np.testing.assert_allclose(state, steps[-1].state[k], rtol=1e-5)


def test_same_seed_repeats_and_no_seed_continues_the_stream(tiny_engine):
    joints = choices(tiny_engine.scenario, 64)
    env, first = play_batched(tiny_engine, joints, seed=1)
    _, second = play_batched(tiny_engine, joints, seed=1)
    assert data_equivalence([vars(s) for s in first], [vars(s) for s in second])
    following = env.reset()
    assert np.any(following.state != first[0].state)


# -- rewards -----------------------------------------------------------------------------------------------
def test_rewards_are_sparse_and_equal_their_terms(exact_engine, exact_law):
    joints = choices(exact_engine.scenario, 40)
    env, steps = play_batched(exact_engine, joints, seed=0, prices=[3.0, 5.0], reward="lagrangian")
    assert all(not s.reward.any() and not s.terminated.any() and not s.infos for s in steps[:-1])
    last = steps[-1]
    cost = exact_law.cost(joints, exact_law.results(env.states, joints))
    np.testing.assert_allclose(last.reward, exact_law.predict(env.states, joints) - cost @ [3.0, 5.0], rtol=1e-4)
    np.testing.assert_allclose(last.infos["computation"], cost @ [3.0, 5.0], rtol=1e-5)
    assert last.terminated.all()
    assert not last.truncated.any()


def test_reward_callable_is_used_and_its_shape_checked(exact_engine):
    joints = choices(exact_engine.scenario, 8)
    _, steps = play_batched(exact_engine, joints, seed=0, reward=lambda outcome, prices: outcome.results[:, 2])
    np.testing.assert_array_equal(steps[-1].reward, steps[-1].infos["results"][:, 2])
    with pytest.raises(InputError, match="returned shape"):
        play_batched(exact_engine, joints, seed=0, reward=lambda outcome, prices: outcome.cost)


# -- masks and forms of the observation ---------------------------------------------------------------------
def test_infos_hold_the_mask_of_the_observation_in_every_step(tiny_engine):
    """AgileRL, tianshou and TorchRL look for it there."""
    parallel, aec = marca_env.parallel_env(engine=tiny_engine), marca_env.env(engine=tiny_engine)
    observations, infos = parallel.reset(seed=0)
    aec.reset(seed=0)
    for turn in range(5):
        for agent in parallel.possible_agents:
            mask = observations[agent]["action_mask"]
            assert mask.dtype == infos[agent]["action_mask"].dtype == np.int8
            np.testing.assert_array_equal(infos[agent]["action_mask"], mask)
            np.testing.assert_array_equal(aec.infos[agent]["action_mask"], mask)
            np.testing.assert_array_equal(aec.observe(agent)["action_mask"], mask)
            assert parallel.is_on_turn(agent) == (not mask[-1])
        if turn == 4:
            break
        actions = {agent: int(info["action_mask"].argmax()) for agent, info in infos.items()}
        aec.step(actions[aec.agent_selection])
        observations, _, _, _, infos = parallel.step(actions)
    assert "revenue" in infos["retrieval"]


def test_box_observations_are_those_of_the_dict_without_the_mask(tiny_engine):
    plain = marca_env.parallel_env(engine=tiny_engine, window=2)
    box = marca_env.parallel_env(engine=tiny_engine, window=2, observations="box", on_illegal="error")
    aec = marca_env.env(engine=tiny_engine, window=2, observations="box")
    observations, infos = plain.reset(seed=0)
    boxes, box_infos = box.reset(seed=0)
    aec.reset(seed=0)
    while plain.agents:
        for agent in plain.agents:
            assert box.observation_space(agent).contains(boxes[agent])
            assert aec.observation_space(agent) == box.observation_space(agent)
            np.testing.assert_array_equal(boxes[agent], observations[agent]["observation"])
            np.testing.assert_array_equal(aec.observe(agent), boxes[agent])
        actions = {agent: int(info["action_mask"].argmax()) for agent, info in box_infos.items()}
        aec.step(actions[aec.agent_selection])
        observations, rewards, *_, infos = plain.step(actions)
        boxes, box_rewards, *_, box_infos = box.step(actions)
        assert rewards == box_rewards
        assert infos["retrieval"].keys() == box_infos["retrieval"].keys()


def test_pettingzoo_tests_pass_with_box_observations(tiny_engine, capsys):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api_test(marca_env.env(engine=tiny_engine, observations="box"), num_cycles=60)
        parallel_api_test(marca_env.parallel_env(engine=tiny_engine, observations="box"), num_cycles=60)
        parallel_seed_test(lambda: marca_env.parallel_env(engine=tiny_engine, observations="box"))
    assert unexplained(caught) == []


# -- mistakes ----------------------------------------------------------------------------------------------
def test_illegal_action_error_names_the_agent_and_the_legal_actions(tiny_engine):
    env = marca_env.env(engine=tiny_engine, on_illegal="error")
    env.reset(seed=0)
    with pytest.raises(IllegalActionError, match=r"'retrieval' took action 2 .*'channels', legal are 0 to 1"):
        env.step(2)
    env = marca_env.parallel_env(engine=tiny_engine, on_illegal="error")
    env.reset(seed=0)
    with pytest.raises(IllegalActionError, match=r"'pre_ranking' took action 0 .*legal is only 3 \(wait\)"):
        env.step({"retrieval": 0, "pre_ranking": 0})
    single = RecommenderEnv(engine=tiny_engine, on_illegal="error")
    single.reset(seed=0)
    with pytest.raises(IllegalActionError, match="legal are 0 to 1"):
        single.step(2)


def test_nearest_takes_the_last_option_for_a_higher_action(exact_engine):
    env = RecommenderEnv(engine=exact_engine)
    _, info = env.reset(seed=0)
    assert info["action_mask"].tolist() == [1, 1, 0]
    for _ in range(4):
        _, _, _, _, info = env.step(2)
    assert info["results"]["ranking"] == 20
    with pytest.raises(InputError, match=r"reset\(\)"):
        env.step(0)
    env.reset()
    with pytest.raises(IllegalActionError):
        env.step(7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "revenu"}, "did you mean 'revenue'"),
        ({"reward": "lagrangian"}, "needs prices"),
        ({"prices": [1.0]}, "retrieval, ranking"),
        ({"prices": [1.0, -1.0]}, "finite and not negative"),
        ({"prices": "high"}, "prices is 'high'; pass a list of numbers"),
        ({"reward": 3}, "reward is 3; pass text or a function"),
        ({"render_mode": "humn"}, "did you mean .human."),
        ({"on_illegal": "nearst"}, "did you mean 'nearest'"),
        ({"observations": "bx"}, "did you mean 'box'"),
    ],
)
def test_wrong_options_are_named_in_the_error(tiny_engine, options, message):
    with pytest.raises(InputError, match=message):
        marca_env.parallel_env(engine=tiny_engine, **options)


def test_wrong_calls_are_named_in_the_error(tiny_engine):
    env = marca_env.batched_env(3, engine=tiny_engine)
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        env.step({})
    env.reset(seed=0)
    with pytest.raises(InputError, match="no action of agent 'pre_ranking'"):
        env.step({"retrieval": np.zeros(3, dtype=int)})
    with pytest.raises(InputError, match="integers of shape"):
        env.step({"retrieval": np.zeros(2, dtype=int), "pre_ranking": np.full(3, 3)})
    for wrong in (0, 2.5):
        with pytest.raises(InputError, match="num_envs"):
            marca_env.batched_env(wrong, engine=tiny_engine)
    with pytest.raises(InputError, match="no episode has started"):
        marca_env.parallel_env(engine=tiny_engine).state()


@pytest.mark.parametrize("action", [1.5, np.nan, "1", None, True, np.array([1])])
def test_actions_that_are_no_single_integer_raise_in_every_view(tiny_engine, action):
    """A fraction would be truncated to the option below it."""
    parallel, aec = marca_env.parallel_env(engine=tiny_engine), marca_env.env(engine=tiny_engine)
    single = RecommenderEnv(engine=tiny_engine)
    for env in (parallel, aec, single):
        env.reset(seed=0)
    calls = (lambda: parallel.step({"retrieval": action, "pre_ranking": 3}), lambda: aec.step(action))
    for call in (*calls, lambda: single.step(action)):
        with pytest.raises(InputError, match="not an integer"):
            call()
    with pytest.raises(InputError, match=r"actions are .*; pass a dict"):
        parallel.step([0, 3])


def test_reward_that_is_not_finite_raises(exact_engine):
    env = marca_env.parallel_env(engine=exact_engine, reward=lambda outcome, prices: outcome.revenue * np.nan)
    env.reset(seed=0)
    for _ in range(3):
        env.step({"retrieval": 0, "pre_ranking": 3})
    with pytest.raises(InputError, match="reward of request 0 is nan"):
        env.step({"retrieval": 3, "pre_ranking": 0})


# -- frames ------------------------------------------------------------------------------------------------
def test_frames_show_the_decisions_and_costs_of_the_request(exact_engine):
    env = marca_env.parallel_env(engine=exact_engine, render_mode="ansi", prices=[1.0, 2.0])
    env.reset(seed=0)
    assert "truncation=?" in env.render()
    for action in ({"retrieval": 1}, {"retrieval": 2}, {"retrieval": 0}, {"pre_ranking": 1, "retrieval": 3}):
        _, _, _, _, infos = env.step({"pre_ranking": 3, **action})
    frame = env.render()
    assert "channels=popularity+two_tower two_tower_length=40 rescoring=off" in frame
    assert f"{infos['retrieval']['results']['ranking']:.0f}  truncation" not in frame
    assert f"cost {1e3 * infos['retrieval']['cost']['ranking']:.2f} core-ms  λ 2" in frame
    pixels = marca_env.parallel_env(engine=exact_engine, render_mode="rgb_array")
    pixels.reset(seed=0)
    assert pixels.render().shape[2] == 3
    assert pixels.render().dtype == np.uint8


def test_agents_of_a_step_are_those_of_the_environment() -> None:
    parallel = marca_env.parallel_env()
    parallel.reset(seed=0)
    actions = dict.fromkeys(parallel.agents, 0)
    with pytest.raises(InputError, match="unknown agent 'retrievl'; did you mean 'retrieval'"):
        parallel.step({**actions, "retrievl": 0})
    with pytest.raises(InputError, match="no action of agent 'pre_ranking'"):
        parallel.step({"retrieval": 0})
    with pytest.raises(KeyError, match="unknown agent 'retrievl'"):  # also the error of a mapping
        parallel.action_space("retrievl")


@pytest.mark.parametrize("seed", [-1, 2**64, "x", 0.5, True, [1]])
def test_a_seed_that_is_none_is_refused_in_every_view(seed: Any) -> None:
    for view in (marca_env.parallel_env(), marca_env.env(), RecommenderEnv(), BalancingEnv(minutes=2, pool_size=5)):
        with pytest.raises(InputError, match="seed"):
            view.reset(seed=seed)  # type: ignore[attr-defined]


def test_a_reward_of_complex_numbers_is_refused() -> None:
    environment = marca_env.batched_env(2, reward=lambda outcome, prices: np.ones(2) * 1j)
    environment.reset(seed=0)
    actions = {agent: np.zeros(2, dtype=int) for agent in environment.agents}
    for _ in range(environment.max_steps - 1):
        environment.step(actions)
    with pytest.raises(InputError, match=r"the reward: .* is not an array of real numbers"):
        environment.step(actions)


def test_a_number_of_environments_that_no_memory_holds_is_refused() -> None:
    with pytest.raises(InputError, match="num_envs is 1000000000000; pass an integer from 1"):
        marca_env.batched_env(10**12)
