"""One batch of episodes: a natively batched environment stepped to its end, as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agents.offline.episodes import Columns
from agents.rllib.modules.team_module import hidden_key
from agents.team.team import TeamSpec, action_key, mask_key, obs_key


def rollout(env: Any, module: Any, spec: TeamSpec, rng: np.random.Generator, rate: float) -> Columns:
    """Play an episode in every sub-environment.

    Args:
        env: of the batched protocol (:mod:`agents.rllib.envs.make_env`), B sub-environments.
        module: the team, in evaluation mode.
        spec: its shapes; at most T = ``max_steps`` steps are played.
        rng: of the environment's seed and of exploration.
        rate: chance that an agent takes a random legal action; at 1 the networks are not asked.

    Returns:
        Columns (B, T, …) or (B, T + 1, …) as :func:`agents.team.td_losses.team_losses` takes them; ``filled`` marks steps
        before an episode's end.
    """
    n = env.num_envs
    step = env.reset(seed=int(rng.integers(2**31)))
    columns = blank_columns(spec, n)
    running = np.ones(n, dtype=bool)
    hidden = module.initial_hidden(n)
    _observe(columns, step, spec, 0)
    for t in range(spec.max_steps):
        columns["filled"][:, t] = running
        if rate < 1.0:
            actions, hidden = _decide(module, spec, step, hidden)
        else:
            actions = dict.fromkeys(spec.agents)
        if rate > 0.0:
            actions = {a: explore(actions[a], step.masks[a], rate, rng) for a in spec.agents}
        step = env.step(actions)
        for agent in spec.agents:
            columns[action_key(agent)][:, t] = actions[agent]
        np.multiply(step.reward, running, out=columns["reward"][:, t])
        np.logical_and(step.terminated, running, out=columns["terminated"][:, t])
        _observe(columns, step, spec, t + 1)
        running &= ~(step.terminated | step.truncated)
        if not running.any():
            break
    return columns


def explore(greedy: np.ndarray | None, mask: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Replace actions by random legal ones.

    Args:
        greedy: (B,) int; ``None`` where every action is to be random.
        mask: (B, A) bool, the legal ones.
        rate: chance of replacing each.
        rng: two numbers are drawn per row; none where no row has a choice.

    Returns:
        (B,) int64.
    """
    if not mask[:, :-1].any():  # the agent is not on turn
        return np.full(len(mask), mask.shape[-1] - 1)
    coins, lots = rng.random((2, len(mask)))
    if greedy is None:
        return _drawn(mask, lots)
    rows = np.flatnonzero(coins < rate)
    mixed = np.array(greedy, dtype=np.int64)
    mixed[rows] = _drawn(mask[rows], lots[rows])
    return mixed


def blank_columns(spec: TeamSpec, n: int) -> Columns:
    """``n`` episodes in which nothing has happened: everyone may only wait."""
    steps = spec.max_steps
    columns: Columns = {
        "state": np.zeros((n, steps + 1, spec.state_size), np.float32),
        "reward": np.zeros((n, steps), np.float32),
        "terminated": np.zeros((n, steps), bool),
        "filled": np.zeros((n, steps), bool),
    }
    for agent, size, count in zip(spec.agents, spec.observation_sizes, spec.action_sizes, strict=True):
        columns[obs_key(agent)] = np.zeros((n, steps + 1, size), np.float32)
        columns[mask_key(agent)] = np.zeros((n, steps + 1, count), bool)
        columns[mask_key(agent)][..., -1] = True
        columns[action_key(agent)] = np.full((n, steps), count - 1, np.int64)
    return columns


def _drawn(mask: np.ndarray, lots: np.ndarray) -> np.ndarray:
    """The k-th legal action of each row, k = ⌊lot · legal actions⌋; (B,) int64."""
    counts = mask.cumsum(-1)  # B A
    wanted = (lots * counts[:, -1]).astype(np.int64)
    return (counts > wanted[:, None]).argmax(-1)


def _decide(
    module: Any, spec: TeamSpec, step: Any, hidden: dict[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Greedy actions and the next recurrent states."""
    batch: dict[str, Any] = dict(hidden)
    for agent in spec.agents:
        batch[obs_key(agent)] = torch.from_numpy(step.observations[agent])
        batch[mask_key(agent)] = torch.from_numpy(step.masks[agent])
    out = module._forward_inference(batch)  # RLlib's wrapper around it only checks what was checked when it was built
    return (
        {agent: out[action_key(agent)].numpy() for agent in spec.agents},
        {hidden_key(agent): out[hidden_key(agent)] for agent in spec.agents},
    )


def _observe(columns: Columns, step: Any, spec: TeamSpec, t: int) -> None:
    for agent in spec.agents:
        columns[obs_key(agent)][:, t] = step.observations[agent]
        columns[mask_key(agent)][:, t] = step.masks[agent]
    columns["state"][:, t] = step.state
