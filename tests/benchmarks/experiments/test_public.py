"""Experiment ``public``: the tasks are the published ones behind a sound interface, and the learners run on them."""

import json

import numpy as np
import pytest

from benchmarks.experiments.public import experiment as public

pytest.importorskip("mpe2", reason="simple_spread needs mpe2: pip install 'marca-env[marl]'")
pytest.importorskip("lbforaging", reason="foraging needs lbforaging: pip install 'marca-env[marl]'")

from pettingzoo.test import parallel_api_test, parallel_seed_test

from benchmarks.plotting.curves import band, curve
from benchmarks.suite.api import Row
from benchmarks.training.greedy_rollout import play_episodes


def made(name, **options):
    """Return one environment of a task, as the batched one steps it."""
    pytest.importorskip("ray", reason="the runner's environments need ray: pip install 'marca-env[rllib]'")
    from agents.rllib.envs.make_env import build_env

    return build_env(name, options)


def batched(name, num_envs=3):
    pytest.importorskip("ray", reason="the runner's environments need ray: pip install 'marca-env[rllib]'")
    from agents.rllib.envs.make_env import make_batched

    task = public.TASKS[name]
    return make_batched(task.env, num_envs, task.env_config)


SIMULATED = [name for name, task in public.TASKS.items() if not task.env.startswith("games/")]
"""Tasks of other packages; the games are batches of ours."""


@pytest.mark.parametrize("name", [public.TASKS[name].env for name in SIMULATED])
def test_tasks_pass_the_tests_of_parallel_environments(name):
    parallel_api_test(made(name), num_cycles=120)
    parallel_seed_test(lambda: made(name), num_cycles=60)


def test_spread_equals_the_published_environment():
    from mpe2 import simple_spread_v3

    options = {"N": 3, "local_ratio": 0.5, "max_cycles": 25}
    theirs, ours = simple_spread_v3.parallel_env(**options), made("mpe2.simple_spread_v3", **options)
    seen, expected = ours.reset(seed=7)[0], theirs.reset(seed=7)[0]
    rng = np.random.default_rng(0)
    for _ in range(25):
        assert ours.agents == theirs.agents
        for agent in theirs.agents:
            np.testing.assert_array_equal(seen[agent], expected[agent])
        np.testing.assert_array_equal(np.concatenate(list(seen.values())), theirs.state())
        actions = {a: int(rng.integers(5)) for a in theirs.agents}
        seen, rewards, ended, cut, _ = ours.step(actions)
        expected, their_rewards, their_ended, their_cut, _ = theirs.step(actions)
        assert rewards == dict(their_rewards)
        assert (ended, cut) == (their_ended, their_cut)
    assert ours.agents == theirs.agents == []
    assert all(cut.values())
    assert not any(ended.values())


def test_foraging_equals_the_published_environment():
    """Its step limit, which the package reports as termination, is a truncation, unless the food is gone."""
    import gymnasium as gym

    ours = made("lbforaging:Foraging-5x5-2p-1f-v3")
    game = gym.make("Foraging-5x5-2p-1f-v3", disable_env_checker=True).unwrapped
    rng, ends = np.random.default_rng(0), set()
    for seed in range(200):
        seen, expected = ours.reset(seed=seed)[0], game.reset(seed=seed)[0]
        over = False
        while not over:
            for agent, theirs in zip(ours.possible_agents, expected, strict=True):
                np.testing.assert_array_equal(seen[agent], theirs)
            actions = rng.integers(6, size=2).tolist()
            seen, rewards, ended, cut, _ = ours.step(dict(zip(ours.possible_agents, actions, strict=True)))
            expected, their_rewards, over, _, _ = game.step(actions)
            assert list(rewards.values()) == their_rewards
            assert all(ended.values()) == (over and not game.field.any())
            assert over == (all(ended.values()) or all(cut.values()))
        ends.add((all(ended.values()), all(cut.values())))
        assert ours.agents == []
    assert {(True, False), (False, True)} <= ends


def test_foraging_terminates_without_food_and_is_truncated_at_the_step_limit():
    env = made("lbforaging:Foraging-5x5-2p-1f-coop-v3")
    env.reset(seed=0)
    game = env.unwrapped
    game.field[:] = 0
    game.field[2, 2], (first, second) = 2, game.players
    first.position, second.position = (2, 1), (2, 3)
    first.level = second.level = 1
    game._food_spawned = 2
    game._gen_valid_moves()
    _, rewards, ended, cut, _ = env.step({"agent_0": 5, "agent_1": 5})
    assert sum(rewards.values()) == 1.0
    assert all(ended.values())
    assert not any(cut.values())

    env.reset(seed=0)
    for step in range(1, 51):
        _, _, ended, cut, _ = env.step({"agent_0": 0, "agent_1": 0})
        assert not any(ended.values())
        assert all(cut.values()) is (step == 50)
    assert env.agents == []


@pytest.mark.parametrize("name", SIMULATED)
def test_batched_environment_has_the_same_spaces_and_length(name):
    env = batched(name)
    length = {"simple_spread": 25, "foraging": 50, "foraging-coop": 50}[name]
    sizes = {"simple_spread": (18, 5, 54), "foraging": (9, 6, 18), "foraging-coop": (12, 6, 24)}[name]
    assert env.max_steps == length
    assert (env.observation_sizes["agent_0"], env.action_sizes["agent_0"], env.state_size) == sizes
    step = env.reset(seed=3)
    for k in range(length):
        assert all(mask.all() for mask in step.masks.values())
        assert not step.terminated.any()
        np.testing.assert_array_equal(step.state, np.hstack([step.observations[a] for a in env.agents]))
        step = env.step(dict.fromkeys(env.agents, np.zeros(3, dtype=int)))
        assert step.truncated.all() == (k == length - 1)
    env.close()


def test_returns_are_sums_over_complete_episodes():
    env = batched("foraging", 4)
    still = {a: np.zeros(4, dtype=int) for a in env.agents}
    assert play_episodes(env, lambda n: lambda step: still, 10, seed=0).tolist() == [0.0] * 10
    env = batched("simple_spread", 2)
    still = {a: np.zeros(2, dtype=int) for a in env.agents}
    first = play_episodes(env, lambda n: lambda step: still, 4, seed=5)
    assert len(set(first.round(6))) == 4  # all episodes differ
    np.testing.assert_array_equal(play_episodes(env, lambda n: lambda step: still, 3, seed=5), first[:3])
    step, by_hand = env.reset(seed=5), np.zeros(2)
    for _ in range(25):
        step = env.step(still)
        by_hand += step.reward
    np.testing.assert_allclose(first[:2], by_hand)


def test_curves_interpolate_and_bands_are_students_t():
    steps = [[10, 20, 30], [8, 16, 24, 28, 32]]
    rows = [[{"env_steps": n, "return": s + n / 4, "seconds": float(s)} for n in ns] for s, ns in enumerate(steps)]
    found = curve(rows)
    assert found["env_steps"] == [10, 21, 32]
    assert found["returns"] == [[2.5, 5.25, 7.5], [3.5, 6.25, 9.0]]  # the last is the last, wherever it was
    assert found["seconds"] == [0.0, 1.0]
    low, high = band(np.array([[0.0, 5.0], [1.0, 5.0]]))
    assert low == pytest.approx([0.5 - 12.706 * 0.5, 5.0], abs=1e-3)  # Student's t of one degree of freedom
    assert high == pytest.approx([0.5 + 12.706 * 0.5, 5.0], abs=1e-3)
    assert np.isnan(band(np.array([[0.0, 5.0]]))).all()  # one seed has no interval


def test_any_environment_is_a_task():
    pytest.importorskip("ray", reason="the runner's environments need ray: pip install 'marca-env[rllib]'")
    from marca_env.utils.errors import InputError

    cases = public.cases(quick=True, seeds=(0,), methods=("random",), tasks=("climbing", "games/two_step-v0"))
    assert [(case.task, case.scenario) for case in cases] == [
        ("climbing", "games/climbing-v0"),
        ("games/two_step-v0", "games/two_step-v0"),
    ]
    numbers = public.measure(cases[1], None)
    (table,) = public.tables([Row(cases[1], numbers, 1.0)])
    assert table.title == "games/two_step-v0"
    with pytest.raises(InputError, match="did you mean 'games/two_step-v0'"):
        public.cases(quick=True, seeds=(0,), tasks=("games/twostep-v0",))


@pytest.mark.slow
def test_quick_run_from_case_to_figure(tmp_path):
    pytest.importorskip("ray", reason="training needs ray: pip install 'marca-env[rllib]'")
    cases = public.cases(quick=True, seeds=(0,))
    assert {(case.task, case.method) for case in cases} == {(t, m) for t in public.TASKS for m in public.METHODS}
    rows = [Row(case, json.loads(json.dumps(public.measure(case, tmp_path))), 1.0) for case in cases]
    for row in rows:
        assert all(np.isfinite(point["return"]) for point in row.numbers["curve"])
        assert row.case.method == "random" or row.numbers["curve"][-1]["env_steps"] >= 300
    assert [table.row_count for table in public.tables(rows)] == [4] * len(public.TASKS)
    ((_, path),) = public.figures(rows, tmp_path).items()
    assert path.stat().st_size > 5000
