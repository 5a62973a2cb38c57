"""Model-free control of the prices: PPO and SAC of RLlib on :class:`benchmarks.experiments.balancing_rl.priced_day.PricedDay`, and days judged.

Days are judged inside ``marca_env/Balancing-v0`` for all methods alike: a learnt policy sees the environment's
observation, a balancer its telemetry, and both set the prices of the same minutes of the same day.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.experiments.balancing_rl.priced_day import PricedDay
from marca_env.traffic.utilisation import overutilisation, utilisation

if TYPE_CHECKING:
    from mpc import Balancer

GAMMA = 0.9
"""A price acts on its own minute; what waits and what is degraded lasts some minutes more."""
HIDDEN = (64, 64)
DAY = 1440
VALIDATION_SEED = 9_000
"""The day of the learning curve; neither trained on nor judged."""
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
"""Minutes that SAC plays between gradient steps."""
Act = Callable[[np.ndarray], np.ndarray]


def configuration(algo: str, seed: int, **environment: Any) -> Any:
    """RLlib's configuration of a training run, all in this process."""
    from agents.rllib.training.any_algorithm import algorithm_config

    config = algorithm_config(algo).environment(PricedDay, env_config=environment)
    config.env_runners(num_env_runners=0).debugging(seed=seed, log_level="ERROR")
    config.training(gamma=GAMMA, **SETTINGS[algo])
    config.rl_module(model_config={"fcnet_hiddens": list(HIDDEN)})
    if algo == "SAC":
        config.env_runners(rollout_fragment_length=FRAGMENT).reporting(min_sample_timesteps_per_iteration=DAY // 2)
    return config


def greedy(algorithm: Any) -> Act:
    """The policy's most likely action for an observation (O,)."""
    module = algorithm.get_module()
    distribution = module.get_inference_action_dist_cls()

    def act(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found = module.forward_inference({"obs": torch.as_tensor(observation)[None]})["action_dist_inputs"]
            return distribution.from_logits(found).to_deterministic().sample()[0].numpy()

    return act


def trained(
    algo: str,
    seed: int,
    steps: int,
    *,
    judge: Callable[[Act], Any],
    evaluations: int = 5,
    **environment: Any,
) -> dict[str, Any]:
    """Train on days drawn from ``seed`` and judge the greedy policy.

    Args:
        algo: a name in :data:`SETTINGS`.
        seed: of weights, exploration and training days.
        steps: minutes of training.
        judge: called with the trained policy.
        evaluations: points of the learning curve.
        environment: arguments of :class:`PricedDay`.

    Returns:
        ``curve``: rows with env_steps, return (greedy, on the validation day) and seconds; ``cpu_seconds`` of the
        training without its evaluations; ``days``: what ``judge`` returned.

    Raises:
        KeyboardInterrupt: Ctrl-C, at whatever moment: a run that has not ended is no result.
    """
    from agents.rllib import train_to_end

    began, away, rows = time.process_time(), 0.0, []

    def validate(algorithm: Any) -> dict[str, float]:
        nonlocal away
        start = time.process_time()
        found = judged_day(PricedDay(environment), VALIDATION_SEED, greedy(algorithm))
        away += time.process_time() - start
        return {"return": found["return"]}

    def record(numbers: dict[str, Any]) -> None:
        if "return" in numbers:
            rows.append({name: numbers[name] for name in ("env_steps", "return")} | {"seconds": spent()})

    def spent() -> float:
        return time.process_time() - began - away

    per_iteration = DAY if algo == "PPO" else DAY // 2
    every = max(1, round(steps / per_iteration / evaluations))
    algorithm, _ = train_to_end(
        configuration(algo, seed, **environment),
        stop={"env_steps": steps},
        record=record,
        evaluate=validate,
        evaluate_freq=every,
    )
    try:
        cpu = spent()
        return {"curve": rows, "cpu_seconds": cpu, "days": judge(greedy(algorithm))}
    finally:
        algorithm.stop()


def judged_day(day: PricedDay, seed: int, way: Act | Balancer) -> dict[str, Any]:
    """One day under a policy or a balancer.

    Args:
        day: the environment.
        seed: of its traffic and arrivals.
        way: a function of the observation, or a balancer.

    Returns:
        ``return`` (sum of rewards), ``revenue`` (currency), and per cluster ``utilisation`` μ and ``overutilisation``
        ν (Eq. 21 and 22, arXiv 2512.24325).
    """
    observation, _ = day.reset(seed=seed)
    inner, used, total, revenue, over = day.base, [], 0.0, 0.0, False
    if not callable(way):
        way.reset()
    while not over:
        if callable(way):
            observation, reward, _, over, info = day.step(way(observation))
        else:
            _, reward, _, over, info = inner.step(inner.action_of(way.update(inner.control)))
        used.append(info["load"] / inner.scenario.budgets)
        total, revenue = total + float(reward), revenue + info["revenue"]
    share = np.array(used)
    return {
        "seed": seed,
        "return": total,
        "revenue": revenue,
        "utilisation": utilisation(share).tolist(),
        "overutilisation": overutilisation(share).tolist(),
    }
