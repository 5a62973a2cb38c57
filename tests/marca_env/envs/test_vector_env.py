"""Tests of the vector environment: the numbers of gymnasium's own SyncVectorEnv, in every autoreset mode."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import vector as wrappers

import marca_env
from marca_env.envs.batched_env import IllegalActionError
from marca_env.envs.vector_env import RecommenderVectorEnv
from marca_env.models.engine import Engine
from marca_env.utils.errors import InputError

ID = "marca_env/Recommender-v0"
IDS = sorted(set(marca_env.ENVIRONMENTS) - {"marca_env/Balancing-v0", "marca_env/Fleet-v0"})


def vectors(name: str, mode: str, num_envs: int = 3, **options: Any) -> tuple[VectorEnv, VectorEnv]:
    """Return gymnasium's vector of single environments and ours."""
    loop = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": mode}}
    theirs = gymnasium.make_vec(name, num_envs=num_envs, **loop, **options)
    ours = gymnasium.make_vec(name, num_envs=num_envs, autoreset_mode=mode, **options)
    assert isinstance(theirs, SyncVectorEnv)
    assert isinstance(ours, RecommenderVectorEnv)
    return theirs, ours


def assert_equal(theirs: Any, ours: Any) -> None:
    assert data_equivalence(theirs, ours, exact=True)


def assert_same_steps(theirs: VectorEnv, ours: VectorEnv, steps: int) -> None:
    """Play random actions, also options that do not exist, in both."""
    theirs.action_space.seed(1)
    over = False
    for _ in range(steps):
        if over and ours.metadata["autoreset_mode"] == AutoresetMode.DISABLED:
            everywhere = {"reset_mask": np.ones(ours.num_envs, dtype=bool)}
            assert_equal(theirs.reset(options=dict(everywhere)), ours.reset(options=everywhere))
        actions = theirs.action_space.sample()
        seen, same = theirs.step(actions), ours.step(actions)
        assert_equal(seen, same)
        over = bool(seen[2].any())


@pytest.mark.parametrize("mode", [mode.value for mode in AutoresetMode])
@pytest.mark.parametrize("window", [None, 3])
def test_it_equals_gymnasiums_vector(exact_engine: Engine, mode: str, window: int | None) -> None:
    options = {"engine": exact_engine, "window": window, "prices": [1.0, 2.0], "reward": "lagrangian"}
    theirs, ours = vectors(ID, mode, **options)
    assert theirs.metadata["autoreset_mode"] == ours.metadata["autoreset_mode"] == AutoresetMode(mode)
    for kind in ("observation_space", "single_observation_space", "action_space", "single_action_space"):
        assert getattr(theirs, kind) == getattr(ours, kind)
    for seed in (5, [4, 9, 4], None, [None, 3, None]):
        assert_equal(theirs.reset(seed=seed), ours.reset(seed=seed))  # the last two continue the streams
        assert_same_steps(theirs, ours, 40)
        if window:  # in the middle of an episode
            assert_equal(theirs.reset(), ours.reset())
            assert_same_steps(theirs, ours, 2)


@pytest.mark.parametrize("name", IDS)
def test_every_id_has_it(name: str) -> None:
    theirs, ours = vectors(name, "NextStep", num_envs=2)
    assert_equal(theirs.reset(seed=0), ours.reset(seed=0))
    assert_same_steps(theirs, ours, 12)


def test_drawn_outcomes_are_equal_too(tiny_scenario: Any, tiny_artefacts: Any) -> None:
    engine = Engine.load(tiny_scenario, tiny_artefacts, noise="gamma")
    theirs, ours = vectors(ID, "NextStep", engine=engine)
    assert_equal(theirs.reset(seed=0), ours.reset(seed=0))
    assert_same_steps(theirs, ours, 80 * 6)  # past the numbers that are drawn ahead


def test_balancing_has_gymnasiums_vector(exact_engine: Engine) -> None:
    vector = gymnasium.make_vec("marca_env/Balancing-v0", num_envs=2, minutes=10, engine=exact_engine)
    assert isinstance(vector, SyncVectorEnv)


def test_gymnasiums_vector_wrappers_take_it(exact_engine: Engine) -> None:
    vector: Any = gymnasium.make_vec(ID, num_envs=4, engine=exact_engine)
    vector = wrappers.DictInfoToList(wrappers.NormalizeReward(wrappers.RecordEpisodeStatistics(vector)))
    vector.reset(seed=0)
    for _ in range(vector.unwrapped._core.max_steps):
        _, _, terminated, _, infos = vector.step(np.zeros(4, dtype=np.int64))
    assert terminated.all()
    assert len(infos) == 4
    assert [info["episode"]["l"] for info in infos] == [4] * 4
    assert all(info["episode"]["r"] == pytest.approx(info["revenue"], rel=1e-5) for info in infos)


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_frames_are_those_of_the_single_environments(exact_engine: Engine, mode: str) -> None:
    theirs, ours = vectors(ID, "NextStep", 2, engine=exact_engine, window=2, render_mode=mode)
    for vector in (theirs, ours):
        vector.reset(seed=0)
    for _ in range(9):
        actions = np.array([0, 1])
        theirs.step(actions)
        ours.step(actions)
        for one, other in zip(theirs.render(), ours.render(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_pickled_vector_goes_on_alike(exact_engine: Engine) -> None:
    ours = gymnasium.make_vec(ID, num_envs=3, engine=exact_engine)
    ours.reset(seed=0)
    ours.step(np.zeros(3, dtype=np.int64))
    copied = pickle.loads(pickle.dumps(ours))
    assert_same_steps(ours, copied, 20)


def test_mistakes_are_named(exact_engine: Engine) -> None:
    def make(**options: Any) -> VectorEnv:
        return gymnasium.make_vec(ID, num_envs=3, engine=exact_engine, **options)

    for options, message in (
        ({"autoreset_mode": "Never"}, "unknown autoreset_mode 'Never'"),
        ({"render_mode": "human"}, "pass 'rgb_array' or 'ansi' for a vector"),
        ({"rewrd": 1}, "did you mean 'reward'"),
    ):
        with pytest.raises(InputError, match=message):
            make(**options)
    env = make(on_illegal="error", autoreset_mode="Disabled")
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        env.step(np.zeros(3, dtype=np.int64))
    with pytest.raises(InputError, match=r"seed is .* for 3 environments"):
        env.reset(seed=[0, 1])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="reset_mask leaves out environment 1"):
        env.reset(options={"reset_mask": np.array([True, False, True])})
    env.reset(seed=0)
    with pytest.raises(IllegalActionError, match="took action 2 at turn 0 of request 1"):
        env.step(np.array([0, 2, 0]))
    with pytest.raises(InputError, match="actions of agent 'retrieval' are float64"):
        env.step(np.zeros(3))
    for _ in range(4):
        env.step(np.zeros(3, dtype=np.int64))
    with pytest.raises(InputError, match="the episodes are over"):
        env.step(np.zeros(3, dtype=np.int64))
    lenient = make()
    lenient.reset(seed=0)
    with pytest.raises(IllegalActionError, match="took action 7 at turn 0 of request 2"):
        lenient.step(np.array([0, 2, 7]))
