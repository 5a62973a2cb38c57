"""Tests of pickles and copies of environments: small, and the same episode goes on in the copy."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

import marca_env
from marca_env.models.engine import Engine

LARGEST = 1_000_000
"""Bytes of a pickle."""
COPIES = {"pickle": lambda env: pickle.loads(pickle.dumps(env)), "deepcopy": copy.deepcopy}
IDS = ["marca_env/Recommender-v0", "marca_env/Balancing-v0", "marca_env/Bursty-v0", "marca_env/Stages10-v0"]


def legal(mask: np.ndarray, rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(mask)))


def play_gym(env: gymnasium.Env, steps: int) -> list[Any]:
    """Play on from where the environment stands, into the next episode."""
    rng, played = np.random.default_rng(1), []
    env.action_space.seed(1)
    for _ in range(steps):
        mask = getattr(env.unwrapped, "action_masks", None)
        result = env.step(env.action_space.sample() if mask is None else legal(mask(), rng))
        played.append((result[0].tolist(), result[1]))
        if result[2] or result[3]:
            played.append(env.reset()[0].tolist())
    return played


def play_parallel(env: Any, steps: int) -> list[Any]:
    rng, played = np.random.default_rng(1), []
    masks = {agent: env._observation(agent)["action_mask"] for agent in env.agents}
    for _ in range(steps):
        seen, rewards, *_ = env.step({agent: legal(mask, rng) for agent, mask in masks.items()})
        played.append(({agent: own["observation"].tolist() for agent, own in seen.items()}, rewards))
        if not env.agents:
            seen, _ = env.reset()
        masks = {agent: own["action_mask"] for agent, own in seen.items()}
    return played


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("name", IDS)
def test_copy_of_a_running_gymnasium_environment_goes_on_alike(name: str, make_copy: Callable[[Any], Any]) -> None:
    env = gymnasium.make(name, **({"minutes": 30} if "Balancing" in name else {}))
    env.reset(seed=0)
    for _ in range(2):
        env.step(env.action_space.sample() * 0)
    copied = make_copy(env)
    assert play_gym(copied, 40) == play_gym(env, 40)


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES.keys())
def test_copy_of_a_running_team_goes_on_alike(make_copy: Callable[[Any], Any]) -> None:
    env = marca_env.parallel_env(window=3, prices=[1.0, 2.0], reward="lagrangian")
    env.reset(seed=0)
    copied = make_copy(env)
    assert play_parallel(copied, 40) == play_parallel(env, 40)


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES.keys())
def test_copy_of_a_running_turn_based_environment_goes_on_alike(make_copy: Callable[[Any], Any]) -> None:
    def play(env: Any) -> list[Any]:
        rng, played = np.random.default_rng(1), []
        for _ in range(4):
            for agent in env.agent_iter():
                observation, reward, terminated, _, info = env.last()
                played.append((agent, observation["observation"].tolist(), reward))
                env.step(None if terminated else legal(info["action_mask"], rng))
            env.reset()
        return played

    env = marca_env.env()
    env.reset(seed=0)
    env.step(1)
    copied = make_copy(env)
    assert play(copied) == play(env)


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES.keys())
def test_copy_of_a_running_batch_goes_on_alike(make_copy: Callable[[Any], Any]) -> None:
    def play(env: Any) -> list[Any]:
        rewards = []
        for _ in range(3):
            for _ in range(env.max_steps - env.turn):
                step = env.step({agent: np.zeros(7, dtype=np.int64) for agent in env.agents})
                rewards.append(step.reward.tolist())
            rewards.append(env.reset().state.tolist())
        return rewards

    for seed in (3, [4] * 7):
        env = marca_env.batched_env(7)
        env.reset(seed=seed)
        env.step({agent: np.zeros(7, dtype=np.int64) for agent in env.agents})
        copied = make_copy(env)
        assert play(copied) == play(env)


def used(env: Any) -> Any:
    """Fill the cache of predictions, which must not be in the pickle."""
    env.reset(seed=0)
    return env


@pytest.mark.parametrize("make", [marca_env.parallel_env, marca_env.env, lambda: marca_env.batched_env(64)])
def test_pickles_of_teams_are_small(make: Callable[[], Any]) -> None:
    assert len(pickle.dumps(used(make()))) < LARGEST


@pytest.mark.parametrize("name", sorted(marca_env.ENVIRONMENTS))
def test_pickles_of_all_ids_are_small(name: str) -> None:
    assert len(pickle.dumps(used(gymnasium.make(name)))) < LARGEST


def test_models_in_memory_travel_in_the_pickle(exact_engine: Engine, tiny_engine: Engine) -> None:
    """Neither engine is in the package."""
    for engine in (exact_engine, tiny_engine):
        env = marca_env.parallel_env(engine=engine)
        env.reset(seed=0)
        copied = pickle.loads(pickle.dumps(env))
        assert copied._core.engine is not engine
        assert play_parallel(copied, 20) == play_parallel(env, 20)


def test_deep_copy_shares_the_models_but_not_the_episode() -> None:
    env = marca_env.parallel_env()
    env.reset(seed=0)
    copied = copy.deepcopy(env)
    assert copied._core.engine.revenue_model is env._core.engine.revenue_model
    before = env.state().tolist()
    copied.step(dict.fromkeys(copied.agents, 0))
    assert env.state().tolist() == before
    assert copied.state().tolist() != before


def test_pool_keeps_tables_that_differ_within_a_group(tiny_engine: Engine) -> None:
    """A pool whose equal joint actions differ in one table is pickled whole."""
    pool = tiny_engine.pool(20)
    clicks = np.arange(pool.outcomes["revenue"].size, dtype=np.float32).reshape(pool.outcomes["revenue"].shape)
    for outcomes in (pool.outcomes, {**pool.outcomes, "clicks": clicks}):
        whole = type(pool)(pool.scenario, pool.states, outcomes, pool.costs, pool.weights)
        copied = pickle.loads(pickle.dumps(whole))
        np.testing.assert_array_equal(copied.costs, whole.costs)
        assert copied.outcomes.keys() == whole.outcomes.keys()
        for name in outcomes:
            np.testing.assert_array_equal(copied.outcomes[name], whole.outcomes[name])
