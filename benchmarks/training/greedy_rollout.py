"""Greedy episodes of an algorithm in training, played side by side in a batched environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from agents.team.team import action_key, mask_key, obs_key

Act = Callable[[Any], dict[str, np.ndarray]]
"""Actions (B,) of every agent for a batched step."""


def trained(
    config: Any, env_steps: int, score: Callable[[Any], float], every: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train from scratch, with greedy evaluations on the way.

    Args:
        config: of an algorithm.
        env_steps: after which it ends.
        score: algorithm → mean return of its greedy policy.
        every: iterations between evaluations.

    Returns:
        Environment steps, ``return`` and ``seconds`` of each evaluation, the time being that of the iterations alone:
        neither evaluations nor what comes before them; and the last iteration's numbers.
    """
    from agents.rllib.training.training import train_to_end

    curve: list[dict[str, Any]] = []

    def report(numbers: Mapping[str, Any]) -> None:
        if "return" in numbers:
            told = {"env_steps": int(numbers["env_steps"]), "return": float(numbers["return"])}
            curve.append(told | {"seconds": float(numbers["time_total_s"])})

    algorithm, numbers = train_to_end(
        config,
        stop={"env_steps": env_steps},
        report=report,
        evaluate=lambda algorithm: {"return": score(algorithm)},
        evaluate_freq=every,
    )
    algorithm.stop()
    return curve, numbers


def play(env: Any, policy: Callable[[int], Act], episodes: int, seed: int) -> np.ndarray:
    """Undiscounted returns (episodes,) of a policy; each round of ``num_envs`` episodes has its own seed."""
    returns: list[np.ndarray] = []
    while len(returns) * env.num_envs < episodes:
        step = env.reset(seed=seed + len(returns) * env.num_envs)
        act, total, running = policy(env.num_envs), np.zeros(env.num_envs), np.ones(env.num_envs, dtype=bool)
        while running.any():
            step = env.step(act(step))
            total += step.reward * running
            running &= ~(step.terminated | step.truncated)
        returns.append(total)
    return np.concatenate(returns)[:episodes]


def greedy(module: Any) -> Callable[[int], Act]:
    """The greedy policy of a team's module, made afresh (recurrent states at zero) for a batch of episodes."""

    def begin(batch: int) -> Act:
        hidden = module.initial_hidden(batch)

        def act(step: Any) -> dict[str, np.ndarray]:
            columns = {obs_key(a): torch.from_numpy(seen) for a, seen in step.observations.items()}
            columns |= {mask_key(a): torch.from_numpy(legal) for a, legal in step.masks.items()}
            out = module.forward_inference({**columns, **hidden})
            hidden.update({name: out[name] for name in hidden})
            return {a: out[action_key(a)].numpy() for a in step.observations}

        return act

    return begin


def greedy_of(algorithm: Any, sizes: dict[str, tuple[int, int]]) -> Callable[[int], Act]:
    """The greedy policy of a preset, or of one of RLlib's algorithms with categorical or valued actions on a team.

    Args:
        algorithm: as it trains.
        sizes: agent → widths of its observation and of its mask.
    """
    from agents.rllib.core.config import TeamConfig

    if isinstance(algorithm.config, TeamConfig):
        return greedy(algorithm.env_runner.module)
    return lambda batch: _rllib(algorithm.env_runner.module, sizes)


def _rllib(modules: Any, sizes: dict[str, tuple[int, int]]) -> Act:
    """RLlib's modules, one for each agent or a shared one, see what :class:`agents.rllib.envs.team_env.TeamEnv` shows."""

    from agents.rllib.training.any_algorithm import SHARED, policy_name

    agents, shared = list(sizes), SHARED in modules
    width, most = (max(size[k] for size in sizes.values()) for k in (0, 1))

    def seen(agent: str, observed: np.ndarray, legal: np.ndarray) -> dict[str, Any]:
        observed, legal = observed.astype(np.float32), legal.astype(np.int8)
        if shared:
            who = np.tile(np.array([a == agent for a in agents], np.float32), (len(observed), 1))
            observed = np.concatenate([np.pad(observed, ((0, 0), (0, width - observed.shape[1]))), who], axis=1)
            legal = np.pad(legal, ((0, 0), (0, most - legal.shape[1])))
        return {"observation": torch.from_numpy(observed), "action_mask": torch.from_numpy(legal)}

    def act(step: Any) -> dict[str, np.ndarray]:
        chosen = {}
        for agent in agents:
            module = modules[SHARED if shared else policy_name(agent)]
            with torch.no_grad():
                out = module.forward_inference({"obs": seen(agent, step.observations[agent], step.masks[agent])})
            best = out["actions"] if "actions" in out else out["action_dist_inputs"].argmax(-1)
            chosen[agent] = best.numpy().astype(np.int64)
        return chosen

    return act
