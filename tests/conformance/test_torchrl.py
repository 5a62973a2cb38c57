"""TorchRL's wrapper: specs hold, and random actions under the masks are legal. ``make test-conformance`` runs it."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest

import marca_env

torchrl_envs = pytest.importorskip("torchrl.envs", reason="needs torchrl: pip install 'marca-env[conformance]'")
from torchrl.envs import (  # noqa: E402
    ActionMask,
    GymEnv,
    GymWrapper,
    MarlGroupMapType,
    PettingZooWrapper,
    TransformedEnv,
)
from torchrl.envs.utils import check_env_specs  # noqa: E402

ROWS = {
    "parallel": "torchrl-parallel",
    "parallel, use_mask": "torchrl-parallel",
    "box": "torchrl-box",
    "aec": "torchrl-aec",
    "uniform": "torchrl-uniform",
    "flat": "torchrl-uniform",
}
"""View → row of the table of libraries."""
SCENARIOS = ("default", "ranking-model-v0", "stages-4-v0")


def marked(*names: str) -> list[Any]:
    """Return the views as parameters that belong to their rows of the table."""
    return [pytest.param(name, marks=pytest.mark.library(ROWS[name])) for name in names]


def wrapped(env: Any, **options: Any) -> PettingZooWrapper:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="PettingZoo in TorchRL is tested")
        return PettingZooWrapper(env, **options)


def views(scenario: str, **options: Any) -> dict[str, PettingZooWrapper]:
    """Every way in which TorchRL can take the environment; illegal actions are errors in each."""
    options = {"scenario": scenario, "on_illegal": "error", **options}
    each = {"group_map": MarlGroupMapType.ONE_GROUP_PER_AGENT, "return_state": True}
    uniform = marca_env.UniformAgents(marca_env.parallel_env(**options))
    flat = marca_env.UniformAgents(marca_env.parallel_env(**{**options, "on_illegal": "nearest"}), flat=True)
    together = {"group_map": MarlGroupMapType.ALL_IN_ONE_GROUP, "return_state": True}
    return {
        "parallel": wrapped(marca_env.parallel_env(**options), **each),
        "parallel, use_mask": wrapped(marca_env.parallel_env(**options), use_mask=True, **each),
        "box": wrapped(marca_env.parallel_env(observations="box", **options), **each),
        "aec": wrapped(marca_env.env(**options), use_mask=True, **each),
        "uniform": wrapped(uniform, **together),
        "flat": wrapped(flat, **together),
    }


@pytest.mark.parametrize("view", marked(*ROWS))
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_specs(scenario: str, view: str) -> None:
    check_env_specs(views(scenario)[view])


@pytest.mark.parametrize("view", marked("parallel", "parallel, use_mask", "box", "aec", "uniform"))
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_masked_random_actions_are_legal(scenario: str, view: str, window: int | None) -> None:
    env = views(scenario, window=window)[view]
    env.set_seed(0)
    for _ in range(6):
        played = env.rollout(1000)
        assert played["next", "done"][-1].all()
        last = played[-1]["next"]
        assert all(float(last[group, "reward"].min()) == float(last[group, "reward"].max()) for group in env.group_map)
        for group in env.group_map:
            if view != "aec":  # there, TorchRL clears the mask of those that do not act
                chosen = played[group, "action"].unsqueeze(-1)
                assert played[group, "action_mask"].gather(-1, chosen).all()


@pytest.mark.library("torchrl-parallel")
def test_without_its_masks_it_would_meet_an_illegal_action() -> None:
    env = views("default")["parallel"]
    env.reset()
    step = env.action_spec.zero()
    for group in env.group_map:
        step[group, "action"] += 2
    with pytest.raises(marca_env.envs.batched_env.IllegalActionError):  # type: ignore[attr-defined]
        env.step(step)


@pytest.mark.library("torchrl-parallel")
def test_a_rollout_is_that_of_the_environment_itself() -> None:
    env, plain = views("default")["parallel"], marca_env.parallel_env()
    env.set_seed(3)
    env.reset(seed=3)
    played = env.rollout(10, auto_reset=True)
    plain.reset(seed=3)
    plain.reset()  # set_seed resets, and so does rollout
    actions = {agent: played[agent, "action"][:, 0].tolist() for agent in plain.possible_agents}
    rewards = [plain.step({agent: actions[agent][t] for agent in actions})[1] for t in range(plain.max_steps)]
    np.testing.assert_array_equal(played["next", "retrieval", "reward"].ravel(), [r["retrieval"] for r in rewards])


@pytest.mark.library("torchrl-aec")
def test_turn_based_form_needs_use_mask() -> None:
    with pytest.raises(ValueError, match="use_mask=True"):
        wrapped(marca_env.env())


@pytest.mark.library("torchrl-gym")
@pytest.mark.parametrize("name", sorted(marca_env.ENVIRONMENTS))
def test_gym_env_of_every_id(name: str) -> None:
    env = GymEnv(name, **({"minutes": 30} if "Balancing" in name else {}))
    check_env_specs(env)
    env.set_seed(0)
    played = env.rollout(1000)
    assert played["next", "done"][-1].all()
    assert played["next", "reward"].isfinite().all()


@pytest.mark.library("torchrl-mask")
def test_gym_env_keeps_to_the_mask() -> None:
    env = TransformedEnv(GymEnv("marca_env/Recommender-v0").auto_register_info_dict(), ActionMask())
    env.set_seed(0)
    for _ in range(20):
        played = env.rollout(100)
        assert not (played["action"].bool() & ~played["action_mask"].bool()).any()


@pytest.mark.library("torchrl-vector")
def test_vector_of_requests_in_the_modes_that_it_takes() -> None:
    with pytest.raises(RuntimeError, match="must be one of SAME_STEP or DISABLED"):
        GymWrapper(gymnasium.make_vec("marca_env/Recommender-v0", num_envs=4))
    for mode in ("Disabled", "SameStep"):
        env = GymWrapper(gymnasium.make_vec("marca_env/Recommender-v0", num_envs=4, autoreset_mode=mode))
        check_env_specs(env)
        played = env.rollout(12, break_when_any_done=False)
        assert played.shape == (4, 12)
        assert int(played["next", "done"].sum()) == 4 * 2
