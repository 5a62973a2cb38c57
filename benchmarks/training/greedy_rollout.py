"""Greedy episodes of an algorithm in training, several at a time in a batched environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from agents.team.team import action_key, mask_key, obs_key, turn_key
from marca_env.utils.errors import InputError

Act = Callable[[Any], dict[str, np.ndarray]]
"""Function of a batched step that returns actions (B,) of every agent."""


def train_with_evaluations(
    config: Any, env_steps: int, score: Callable[[Any], float], every: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train a new algorithm and evaluate its greedy policy on the way.

    Args:
        config: of the algorithm.
        env_steps: environment steps after which the training ends.
        score: algorithm → mean return of its greedy policy.
        every: iterations between evaluations.

    Returns:
        ``env_steps``, ``return``, ``seconds`` and ``cpu_seconds`` of each evaluation, and the numbers of the last
        iteration. The seconds count the iterations alone, not the evaluations and the setup; CPU seconds those of this
        process.
    """
    from agents.rllib.training.training import train_to_end

    curve: list[dict[str, Any]] = []
    clock = _TrainingClock()

    def report(numbers: Mapping[str, Any]) -> None:
        if "return" in numbers:
            point = {name: float(numbers[name]) for name in ("return", "cpu_seconds")}
            curve.append(point | {"env_steps": int(numbers["env_steps"]), "seconds": float(numbers["time_total_s"])})
        clock.start()

    def evaluate(algorithm: Any) -> dict[str, float]:
        clock.stop()
        return {"return": score(algorithm), "cpu_seconds": clock.seconds}

    algorithm, numbers = train_to_end(
        config,
        stop={"env_steps": env_steps},
        report=report,
        evaluate=evaluate,
        evaluate_freq=every,
    )
    algorithm.stop()
    return curve, numbers


class _TrainingClock:
    """CPU seconds of this process between ``start`` and ``stop``; before the first start it stands still."""

    def __init__(self) -> None:
        self.seconds, self._since, self._runs = 0.0, 0.0, False

    def start(self) -> None:
        """Start, unless it runs."""
        if not self._runs:
            self._runs, self._since = True, time.process_time()

    def stop(self) -> None:
        """Stop and add the time since the start."""
        if self._runs:
            self._runs = False
            self.seconds += time.process_time() - self._since


def play_episodes(env: Any, policy: Callable[[int], Act], episodes: int, seed: int) -> np.ndarray:
    """Play episodes and return their undiscounted returns (episodes,).

    Args:
        env: batched environment.
        policy: batch size → function that acts.
        episodes: how many.
        seed: of the first round of ``num_envs`` episodes; each round adds ``num_envs`` to it.

    Raises:
        InputError: a reward is not finite.
    """
    returns: list[np.ndarray] = []
    while len(returns) * env.num_envs < episodes:
        step = env.reset(seed=seed + len(returns) * env.num_envs)
        act, total, running = policy(env.num_envs), np.zeros(env.num_envs), np.ones(env.num_envs, dtype=bool)
        for _ in range(env.max_steps):
            step = env.step(act(step))
            total[running] += step.reward[running]
            running &= ~(step.terminated | step.truncated)
            if not running.any():
                break
        if not np.isfinite(total).all():
            raise InputError(f"a return of {type(env).__name__} is not finite; fix the rewards of the environment")
        returns.append(total)
    return np.concatenate(returns)[:episodes]


def greedy_team_policy(module: Any) -> Callable[[int], Act]:
    """Return the greedy policy of a team's module; recurrent states start at zero for each batch of episodes."""

    def begin(batch: int) -> Act:
        hidden = module.initial_hidden(batch)

        def act(step: Any) -> dict[str, np.ndarray]:
            columns = {obs_key(a): torch.from_numpy(observed) for a, observed in step.observations.items()}
            columns |= {mask_key(a): torch.from_numpy(legal) for a, legal in step.masks.items()}
            columns |= {turn_key(a): torch.from_numpy(turns) for a, turns in (step.on_turn or {}).items()}
            out = module.forward_inference({**columns, **hidden})
            hidden.update({name: out[name] for name in hidden})
            return {a: out[action_key(a)].numpy() for a in step.observations}

        return act

    return begin


def greedy_policy(algorithm: Any, sizes: dict[str, tuple[int, int]]) -> Callable[[int], Act]:
    """Return the greedy policy of a preset, or of an algorithm of RLlib with categorical or valued actions on a team.

    Args:
        algorithm: in training.
        sizes: agent → widths of its observation and of its mask.
    """
    from agents.rllib.core.team_config import TeamConfig

    if isinstance(algorithm.config, TeamConfig):
        return greedy_team_policy(algorithm.env_runner.module)
    return lambda batch: _rllib_policy(algorithm.env_runner.module, sizes)


def _rllib_policy(modules: Any, sizes: dict[str, tuple[int, int]]) -> Act:
    """Act with the modules of RLlib, one for each agent or a shared one; inputs as :class:`TeamEnv` makes them."""
    from agents.rllib.training.any_algorithm import SHARED, policy_name

    agents, shared = list(sizes), SHARED in modules
    width, most = (max(size[k] for size in sizes.values()) for k in (0, 1))

    def inputs(agent: str, observed: np.ndarray, legal: np.ndarray) -> dict[str, Any]:
        observed, legal = observed.astype(np.float32), legal.astype(np.int8)
        if shared:
            who = np.tile(np.array([a == agent for a in agents], np.float32), (len(observed), 1))
            observed = np.concatenate([np.pad(observed, ((0, 0), (0, width - observed.shape[1]))), who], axis=1)
            legal = np.pad(legal, ((0, 0), (0, most - legal.shape[1])))
        return {"observation": torch.from_numpy(observed), "action_mask": torch.from_numpy(legal)}

    def act(step: Any) -> dict[str, np.ndarray]:
        actions = {}
        for agent in agents:
            module = modules[SHARED if shared else policy_name(agent)]
            with torch.no_grad():
                out = module.forward_inference({"obs": inputs(agent, step.observations[agent], step.masks[agent])})
            best = out["actions"] if "actions" in out else out["action_dist_inputs"].argmax(-1)
            actions[agent] = best.numpy().astype(np.int64)
        return actions

    return act
