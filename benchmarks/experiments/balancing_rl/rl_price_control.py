"""Model-free control of the prices λ: RLlib's PPO and SAC, trained on days of the environment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from agents.rllib import train_to_end
from agents.rllib.training.any_algorithm import algorithm_config
from benchmarks.experiments.balancing_rl.judged_days import VALIDATION_SEED, Act, judge_day
from benchmarks.experiments.balancing_rl.priced_day import PricedDay

GAMMA = 0.9
"""A price acts on its own minute; waiting work and degradation last some minutes more."""
HIDDEN = (64, 64)
DAY = 1440
SETTINGS: dict[str, dict[str, Any]] = {
    "PPO": {
        "lr": 1e-3,
        "lambda_": 0.9,
        "train_batch_size_per_learner": DAY,
        "minibatch_size": 288,
        "num_epochs": 8,
        "vf_clip_param": 100.0,
    },
    "SAC": {
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
        "alpha_lr": 1e-3,
        "tau": 0.01,
        "train_batch_size_per_learner": 64,
        "num_steps_sampled_before_learning_starts": 720,
        "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 50_000},
    },
}
FRAGMENT = 8
"""Minutes that SAC simulates between gradient steps."""


def price_control_config(algo: str, seed: int, **environment: Any) -> Any:
    """Return RLlib's configuration of a training run in this process."""
    config = algorithm_config(algo).environment(PricedDay, env_config=environment)
    config.env_runners(num_env_runners=0).debugging(seed=seed, log_level="ERROR")
    config.training(gamma=GAMMA, **SETTINGS[algo])
    config.rl_module(model_config={"fcnet_hiddens": list(HIDDEN)})
    if algo == "SAC":
        config.env_runners(rollout_fragment_length=FRAGMENT).reporting(min_sample_timesteps_per_iteration=DAY // 2)
    return config


def greedy_policy(algorithm: Any) -> Act:
    """Return a function from an observation (O,) to the policy's most likely action."""
    module = algorithm.get_module()
    distribution = module.get_inference_action_dist_cls()

    def act(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = module.forward_inference({"obs": torch.as_tensor(observation)[None]})["action_dist_inputs"]
            return distribution.from_logits(logits).to_deterministic().sample()[0].numpy()

    return act


def train_price_control(
    algo: str,
    seed: int,
    steps: int,
    *,
    judge: Callable[[Act], Any],
    evaluations: int = 5,
    **environment: Any,
) -> dict[str, Any]:
    """Train on days drawn from ``seed`` and evaluate the greedy policy.

    Args:
        algo: a name in :data:`SETTINGS`.
        seed: of weights, exploration and training days.
        steps: minutes of training.
        judge: called with the trained policy.
        evaluations: number of points of the learning curve.
        environment: arguments of :class:`PricedDay`.

    Returns:
        ``curve``: rows with env_steps, return (greedy, on the validation day) and seconds; ``cpu_seconds`` of the
        training without its evaluations; ``days``: what ``judge`` returned.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed: a run that has not ended is no result.
    """
    began, evaluation_seconds = time.process_time(), 0.0
    rows: list[dict[str, Any]] = []

    def validate(algorithm: Any) -> dict[str, float]:
        nonlocal evaluation_seconds
        start = time.process_time()
        numbers = judge_day(PricedDay(environment), VALIDATION_SEED, greedy_policy(algorithm))
        evaluation_seconds += time.process_time() - start
        return {"return": numbers["return"]}

    def record(numbers: dict[str, Any]) -> None:
        if "return" in numbers:
            rows.append({name: numbers[name] for name in ("env_steps", "return")} | {"seconds": training_seconds()})

    def training_seconds() -> float:
        return time.process_time() - began - evaluation_seconds

    per_iteration = DAY if algo == "PPO" else DAY // 2
    every = max(1, round(steps / per_iteration / evaluations))
    algorithm, _ = train_to_end(
        price_control_config(algo, seed, **environment),
        stop={"env_steps": steps},
        record=record,
        evaluate=validate,
        evaluate_freq=every,
    )
    try:
        cpu_seconds = training_seconds()
        return {"curve": rows, "cpu_seconds": cpu_seconds, "days": judge(greedy_policy(algorithm))}
    finally:
        algorithm.stop()
