"""Stable-Baselines3 accepts the Gymnasium environments, learns on them, and its masked PPO keeps to the masks."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import marca_env

pytest.importorskip("stable_baselines3", reason="needs stable-baselines3: pip install 'marca-env[conformance]'")
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_checker import check_env

IDS = sorted(marca_env.ENVIRONMENTS)


@pytest.mark.library("sb3")
@pytest.mark.parametrize("name", IDS)
@pytest.mark.filterwarnings("error", "ignore:We recommend you to use a symmetric")
def test_check_env(name: str) -> None:
    check_env(gymnasium.make(name, render_mode="ansi").unwrapped)


@pytest.mark.parametrize(
    ("learner", "options"),
    [
        (PPO, {"n_steps": 64, "batch_size": 32}),
        (SAC, {"learning_starts": 50, "batch_size": 32}),
    ],
)
@pytest.mark.library("sb3")
def test_prices_are_learned(learner: type, options: dict) -> None:
    env = gymnasium.make("marca_env/Balancing-v0", minutes=20, pool_size=40)
    model = learner("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [16]}, **options)
    model.learn(192)
    returns = [episode["r"] for episode in model.ep_info_buffer]
    assert len(returns) >= 9
    assert np.isfinite(returns).all()
    action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert env.action_space.contains(action)


@pytest.mark.parametrize(
    ("learner", "options"),
    [
        (DQN, {"learning_starts": 50, "batch_size": 32}),
        (PPO, {"n_steps": 64, "batch_size": 32}),
    ],
)
@pytest.mark.library("sb3")
def test_decisions_are_learned(learner: type, options: dict) -> None:
    env = gymnasium.make("marca_env/Recommender-v0")
    model = learner("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [16]}, **options)
    model.learn(320)
    returns = [episode["r"] for episode in model.ep_info_buffer]
    assert len(returns) >= 60
    assert all(0 <= value < 5 for value in returns)


@pytest.mark.library("sb3-masked")
def test_masked_ppo_never_meets_an_illegal_action() -> None:
    contrib = pytest.importorskip("sb3_contrib", reason="needs sb3-contrib: pip install 'marca-env[conformance]'")
    env = gymnasium.make("marca_env/Recommender-v0", on_illegal="error")
    options = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [16]}, "n_steps": 64, "batch_size": 32}
    model = contrib.MaskablePPO("MlpPolicy", env, **options)
    model.learn(640)  # raises at the first illegal action
    with pytest.raises(marca_env.envs.batched_env.IllegalActionError):  # type: ignore[attr-defined]
        PPO("MlpPolicy", env, **options).learn(640)
