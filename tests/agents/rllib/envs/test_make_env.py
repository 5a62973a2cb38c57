"""Environments for the runner: lookup by name, and loops over environments with unequal episodes."""

from __future__ import annotations

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from ray.tune.registry import register_env

from agents.rllib.envs.make_env import SequentialEnv, make_batched
from benchmarks.experiments.games.matrix_games import TwoStepGame
from marca_env.envs.pettingzoo_env import parallel_env
from marca_env.utils.errors import InputError
from tests.helpers.rllib_envs import AGENTS, Corridor, Cue, Leavers, MayLeave, Turns, make_corridor


def test_a_batched_environment_is_used_directly() -> None:
    assert isinstance(make_batched("benchmarks.experiments.games.matrix_games.TwoStepGame", 5), TwoStepGame)
    assert make_batched(TwoStepGame, 5).num_envs == 5


def test_names_registered_with_rllib_are_found() -> None:
    register_env("corridor", make_corridor)
    env = make_batched("corridor", 3, {"masked": True})
    assert isinstance(env, SequentialEnv)
    assert env.num_envs == 3


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'marca_env/parallel-v0'"):
        make_batched("marca_env/paralel-v0", 1)


def test_shapes_follow_the_environment() -> None:
    env = make_batched(Corridor, 2)
    assert env.agents == tuple(AGENTS)
    assert env.observation_sizes == {"left": 7, "right.arm": 7}
    assert env.action_sizes == {"left": 2, "right.arm": 3}
    assert (env.state_size, env.max_steps) == (14, 6)


def test_ended_sub_environments_wait_for_the_others() -> None:
    env = make_batched(Corridor, 3)
    step = env.reset()
    assert step.masks["right.arm"].tolist() == [[False, True, True]] * 3
    go = {"left": np.ones(3, int), "right.arm": np.ones(3, int)}
    ended, rewards = [], []
    for _ in range(4):
        step = env.step(go)
        ended.append(step.terminated.tolist())
        rewards.append(step.reward.tolist())
    # every sub-environment is in its first episode, of two cells
    assert ended == [[False] * 3, [True] * 3, [False] * 3, [False] * 3]
    assert np.sum(rewards) == 6
    assert step.masks["left"].tolist() == [[False, True]] * 3  # it has left: it may only wait
    env.envs[0].episode = 1
    env.reset()
    lengths = np.zeros(3, int)
    running = np.ones(3, bool)
    for _ in range(6):
        step = env.step(go)
        lengths += running
        running &= ~step.terminated
    assert lengths.tolist() == [4, 3, 3]


def test_unsupported_environments_are_refused() -> None:
    class Continuous(Corridor):
        def action_space(self, agent: str):  # type: ignore[no-untyped-def]
            return gym.spaces.Box(0, 1, (2,))

    with pytest.raises(InputError, match="need Discrete"):
        make_batched(Continuous, 1)

    class Endless(Corridor):
        max_steps = None  # type: ignore[assignment]

    with pytest.raises(InputError, match="max_episode_steps"):
        make_batched(Endless, 1)
    assert make_batched(Endless, 1, max_steps=9).max_steps == 9


@pytest.mark.parametrize("cut", [True, False])
def test_agents_that_leave_early_wait(cut: bool) -> None:
    """After truncation the last observation and its legal actions remain; after termination all agents wait."""
    env = make_batched(Leavers, 2, {"cut": cut})
    step = env.reset(seed=4)
    assert env.observation_sizes == {"early": 6, "late": 6}
    assert step.observations["early"][:, 2:].tolist() == [[1, 0, 0, 0]] * 2  # one-hot of the turn
    assert step.masks["early"].tolist() == [[False, True, False]] * 2
    rewards, waits, ends = [], [], []
    for _ in range(3):
        step = env.step({"early": np.ones(2, int), "late": np.ones(2, int)})
        rewards.append(step.reward.tolist())
        waits.append((~step.is_on_turn("early")).tolist())
        ends.append((step.terminated.tolist(), step.truncated.tolist()))
    assert rewards == [[2.0, 2.0], [1.5, 1.5], [1.5, 1.5]]  # the mean over all agents; who has left counts as 0
    assert waits == [[True, True]] * 3
    assert ends == [([False] * 2, [False] * 2)] * 2 + [([not cut] * 2, [cut] * 2)]
    assert step.masks["late"].tolist() == [[False, cut, True]] * 2


def test_seeds_determine_every_sub_environment() -> None:
    env = make_batched(Leavers, 3)
    first, again, other = (env.reset(seed=s).observations["late"] for s in (7, 7, 8))
    assert np.array_equal(first, again)
    assert len(np.unique(np.concatenate([first, other])[:, 0])) == 6


def test_rllib_environments_may_take_turns() -> None:
    env = make_batched(Turns, 2)
    step, turns = env.reset(seed=0), []
    for t in range(4):
        on_turn = [a for a in env.agents if step.is_on_turn(a).any()]
        turns.append(on_turn)
        step = env.step({"one": np.array([1, 2]), "two": np.array([2, 2])})
        assert step.reward.tolist() == ([0.5, 1] if t % 2 == 0 else [1, 1])  # the other agent's reward is 0
    assert turns == [["one"], ["two"], ["one"], ["two"]]
    assert step.terminated.all()
    assert env.reset(seed=0).observations["two"].tolist() == [[0], [0]]  # no trace of the last episode


def test_an_agent_in_the_episode_may_be_declared_off_turn() -> None:
    class Waiting(Cue):
        def _seen(self) -> tuple[dict, dict]:
            observations, infos = super()._seen()
            infos["one"]["on_turn"] = self.at == 1
            return observations, infos

    env = make_batched(Waiting, 2, {"forced": 1})
    step = env.reset(seed=0)
    assert step.masks["one"].tolist() == step.masks["two"].tolist() == [[False, True]] * 2
    assert step.is_on_turn("one").tolist() == [False, False]
    assert step.is_on_turn("two").tolist() == [True, True]  # its last action is forced, but it observes
    step = env.step({"one": np.ones(2, int), "two": np.ones(2, int)})
    assert step.is_on_turn("one").tolist() == [True, True]
    assert not env.step({"one": np.ones(2, int), "two": np.ones(2, int)}).is_on_turn("two").any()  # terminated


def test_the_recommender_declares_its_turns(exact_engine) -> None:  # type: ignore[no-untyped-def]
    """The PettingZoo environment, stepped in a loop, says the same as the batched one."""
    batched = make_batched("marca_env/parallel-v0", 2, {"engine": exact_engine})
    looped = make_batched(partial(parallel_env, engine=exact_engine), 2)
    one, two = batched.reset(seed=0), looped.reset(seed=0)
    for agent in batched.encoder.turn_agent:
        for step in (one, two):
            assert {a for a in batched.agents if step.is_on_turn(a).all()} == {agent}
            assert sum(step.is_on_turn(a).any() for a in batched.agents) == 1
        actions = {a: one.masks[a].argmax(-1) for a in batched.agents}
        one, two = batched.step(actions), looped.step(actions)
    assert not any(step.is_on_turn(a).any() for a in batched.agents for step in (one, two))


@pytest.mark.parametrize(("kind", "expected"), [("mean", [1.5, 1.0, 1.0]), ("sum", [3.0, 2.0, 2.0])])
def test_the_team_reward_counts_every_possible_agent(kind: str, expected: list[float]) -> None:
    env = make_batched(MayLeave, 1, team_reward=kind)
    env.reset(seed=0)
    stay, leave = np.ones(1, int), np.zeros(1, int)
    rewards = [env.step({"rich": stay, "poor": stay}).reward[0]]
    rewards.append(env.step({"rich": stay, "poor": leave}).reward[0] - 0.5 * (0.5 if kind == "mean" else 1.0))
    rewards.append(env.step({"rich": stay, "poor": stay}).reward[0])  # poor has left
    assert rewards == expected


def test_an_unknown_or_useless_team_reward_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'sum'"):
        make_batched(MayLeave, 1, team_reward="summ")
    with pytest.raises(InputError, match="TwoStepGame has one reward for the whole team"):
        make_batched(TwoStepGame, 1, team_reward="sum")


def test_wrong_options_of_an_environment_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown option of Corridor 'maskd'; did you mean 'masked'"):
        make_batched(Corridor, 1, {"maskd": True})
    with pytest.raises(InputError, match=r"unknown option of TwoStepGame 'seed' \(valid: \)"):
        make_batched("benchmarks.experiments.games.matrix_games.TwoStepGame", 1, {"seed": 1})

    def passes_on(**options: object) -> Corridor:
        return Corridor(**options)  # type: ignore[arg-type]

    with pytest.raises(InputError, match="passes_on takes no option 'maskd'"):
        make_batched(passes_on, 1, {"maskd": True})

    def needs(width: int, masked: bool = True) -> Corridor:
        return Corridor(masked)

    with pytest.raises(InputError, match="needs needs width"):
        make_batched(needs, 1, {"masked": True})
