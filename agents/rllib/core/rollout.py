"""Rollout of one batch of episodes in a natively batched environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agents.offline.episodes import Columns
from agents.rllib.core.env_checks import call_env, check_columns, check_step
from agents.rllib.core.memory import check_memory
from agents.rllib.modules.team_module import hidden_key
from agents.team.team import TeamSpec, action_key, mask_key, obs_key, turn_key


def rollout(env: Any, module: Any, spec: TeamSpec, rng: np.random.Generator, rate: float) -> Columns:
    """Play one episode in every sub-environment.

    Args:
        env: environment of the batched protocol (:mod:`agents.rllib.envs.make_env`) with B sub-environments.
        module: the team, in evaluation mode.
        spec: shapes of the team; at most T = ``max_steps`` steps are played.
        rng: generator of the environment's seed and of exploration.
        rate: probability that an agent takes a random legal action; at 1 the networks are not evaluated.

    Returns:
        Columns (B, T, …) or (B, T + 1, …) for :func:`agents.team.td_losses.team_losses`; ``filled`` marks the steps
        up to the end of the episode, and everything after it is zero. There is no ``state`` where it is the
        concatenated observations.

    Raises:
        InputError: the environment raised an error, or its data are not finite or of the wrong shape.
    """
    n = env.num_envs
    step = call_env(env.reset, env, "reset()", seed=int(rng.integers(2**31)))
    check_step(step, spec, env)
    columns = blank_columns(spec, n, step, with_state=not getattr(env, "state_is_observations", False))
    running = np.ones(n, dtype=bool)
    hidden = module.initial_hidden(n)
    _observe(columns, step, spec, 0, running)
    for t in range(spec.max_steps):
        columns["filled"][:, t] = running
        if rate < 1.0:
            actions, hidden = _decide(module, spec, step, hidden)
        else:
            actions = dict.fromkeys(spec.agents)
        if rate > 0.0:
            actions = {a: explore(actions[a], step.masks[a], rate, rng, step.is_on_turn(a)) for a in spec.agents}
        step = call_env(env.step, env, f"step {t + 1}", actions)
        check_step(step, spec, env)
        for agent in spec.agents:
            columns[action_key(agent)][:, t] = actions[agent]
        columns["reward"][running, t] = step.reward[running]
        np.logical_and(step.terminated, running, out=columns["terminated"][:, t])
        _observe(columns, step, spec, t + 1, running)
        running &= ~(step.terminated | step.truncated)
        if not running.any():
            break
    check_columns(columns, spec, env)
    return columns


def explore(
    greedy: np.ndarray | None, mask: np.ndarray, rate: float, rng: np.random.Generator, on_turn: np.ndarray
) -> np.ndarray:
    """Replace actions by random legal actions.

    Args:
        greedy: (B,) int; ``None`` if every action is to be random.
        mask: (B, A) bool, legal actions.
        rate: probability of replacing each action.
        rng: two numbers are drawn per row; none if the agent is on turn in no row.
        on_turn: (B,) bool; elsewhere the agent takes its first legal action.

    Returns:
        (B,) int64.
    """
    if not on_turn.any():
        return mask.argmax(-1)
    coins, picks = rng.random((2, len(mask)))
    if greedy is None:
        return np.where(on_turn, _pick_legal(mask, picks), mask.argmax(-1))
    rows = np.flatnonzero((coins < rate) & on_turn)
    actions = np.array(greedy, dtype=np.int64)
    actions[rows] = _pick_legal(mask[rows], picks[rows])
    return actions


def blank_columns(spec: TeamSpec, n: int, step: Any, *, with_state: bool = True) -> Columns:
    """Return columns of ``n`` empty episodes, in which no agent is on turn.

    Args:
        spec: shapes of the team.
        n: number of episodes.
        step: first step of the episodes; images, of dtype uint8, stay so.
        with_state: whether there is a column of states.

    Raises:
        InputError: there is not enough memory.
    """
    steps = spec.max_steps
    dtypes = {a: np.uint8 if step.observations[a].dtype == np.uint8 else np.float32 for a in spec.agents}
    sizes = zip(dtypes.values(), spec.observation_sizes, strict=True)
    state_dtype = np.uint8 if step.state.dtype == np.uint8 else np.float32
    numbers = sum(np.dtype(dtype).itemsize * size for dtype, size in sizes)
    numbers += np.dtype(state_dtype).itemsize * spec.state_size * with_state
    check_memory("a batch of episodes", "num_envs_per_env_runner", n, (steps + 1) * numbers)
    columns: Columns = {
        "reward": np.zeros((n, steps), np.float32),
        "terminated": np.zeros((n, steps), bool),
        "filled": np.zeros((n, steps), bool),
    }
    if with_state:
        columns["state"] = np.zeros((n, steps + 1, spec.state_size), state_dtype)
    for agent, size, count in zip(spec.agents, spec.observation_sizes, spec.action_sizes, strict=True):
        columns[obs_key(agent)] = np.zeros((n, steps + 1, size), dtypes[agent])
        columns[mask_key(agent)] = np.zeros((n, steps + 1, count), bool)
        columns[mask_key(agent)][..., -1] = True
        columns[turn_key(agent)] = np.zeros((n, steps + 1), bool)
        columns[action_key(agent)] = np.full((n, steps), count - 1, np.int64)
    return columns


def _pick_legal(mask: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """Return the k-th legal action of each row, k = ⌊pick · number of legal actions⌋; (B,) int64."""
    counts = mask.cumsum(-1)  # B A
    k = (picks * counts[:, -1]).astype(np.int64)
    return (counts > k[:, None]).argmax(-1)


def _decide(
    module: Any, spec: TeamSpec, step: Any, hidden: dict[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return greedy actions and the next recurrent states."""
    batch: dict[str, Any] = dict(hidden)
    for agent in spec.agents:
        batch[obs_key(agent)] = torch.from_numpy(step.observations[agent])
        batch[mask_key(agent)] = torch.from_numpy(step.masks[agent])
        if step.on_turn is not None:
            batch[turn_key(agent)] = torch.from_numpy(step.on_turn[agent])
    out = module._forward_inference(batch)  # RLlib's wrapper would only repeat checks that were done at construction
    return (
        {agent: out[action_key(agent)].numpy() for agent in spec.agents},
        {hidden_key(agent): out[hidden_key(agent)] for agent in spec.agents},
    )


def _observe(columns: Columns, step: Any, spec: TeamSpec, t: int, running: np.ndarray) -> None:
    """Store the observations of step ``t`` of the episodes that were running before it."""
    rows = slice(None) if running.all() else running
    for agent in spec.agents:
        columns[obs_key(agent)][rows, t] = step.observations[agent][rows]
        columns[mask_key(agent)][rows, t] = step.masks[agent][rows]
        columns[turn_key(agent)][rows, t] = True if step.on_turn is None else step.on_turn[agent][rows]
    if "state" in columns:
        columns["state"][rows, t] = step.state[rows]
