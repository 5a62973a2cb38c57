"""Rollout of one batch of episodes in an environment of tensors; nothing in it waits for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agents.algorithms.td_targets import greedy
from agents.rllib.modules.team_module import hidden_key
from agents.team.team import TeamSpec, action_key, mask_key, obs_key, turn_key
from marca_env.envs.batched_env import BatchedRecommender
from marca_env.envs.tensor_env import TensorRecommender, TensorStep
from marca_env.utils.errors import InputError

TensorColumns = dict[str, Tensor]


def sampling_device(config: Any) -> str:
    """Return the device of a configuration's sampling with tensors: that of a learner in this process, else the CPU."""
    is_local = not config.num_env_runners and not config.num_learners
    return "cuda" if config.num_gpus_per_learner and is_local else "cpu"


def make_tensor_env(env: Any, device: str) -> TensorRecommender:
    """Return the tensors of a batched environment.

    Raises:
        InputError: it is no environment of requests with agents, or it has no tensors.
    """
    if not isinstance(env, BatchedRecommender):
        raise InputError(
            f"sampling is 'tensors', but {type(env).__name__} has none; use an environment of requests with an "
            "algorithm of several agents, or sampling='arrays'"
        )
    return TensorRecommender.of(env, device)


@torch.inference_mode()
def tensor_rollout(
    env: TensorRecommender, module: Any, spec: TeamSpec, generator: torch.Generator, rate: float
) -> TensorColumns:
    """Play one episode in every sub-environment.

    Args:
        env: the environment, with B sub-environments.
        module: the team, in evaluation mode, on the device of the environment.
        spec: shapes of the team.
        generator: generator of the device, of requests and exploration.
        rate: probability that an agent takes a random legal action; at 1 the networks are not evaluated.

    Returns:
        The columns of :func:`agents.rllib.core.rollout.rollout` as tensors on the device.
    """
    n, device = env.num_envs, env.device
    drawn = torch.rand(n, dtype=torch.float64, device=device, generator=generator)
    step = env.reset(requests=env.table.draw(drawn))
    columns = _blank_columns(spec, n, device)
    _observe(columns, env, step, 0)
    hidden = module.initial_hidden(n) if rate < 1.0 else {}
    networks = dict(zip(spec.agents, module.deciding.agents, strict=True))
    for t in range(spec.max_steps):
        agent, options = env.encoder.turn_agent[t], env.options[t]
        actions = None
        if rate < 1.0:
            network, observation = networks[agent], step.observations[agent]
            hidden[hidden_key(agent)] = state = network.advance(observation, hidden[hidden_key(agent)])
            actions = greedy(network.values(observation, state).mean(1), step.masks[agent])
        actions = _explore(actions, n, options, rate, generator)
        step = env.step({agent: actions})
        columns[action_key(agent)][:, t] = actions
        columns["reward"][:, t] = step.reward
        _observe(columns, env, step, t + 1)
    columns["filled"].fill_(True)
    columns["terminated"][:, -1] = True
    return columns


def _explore(actions: Tensor | None, n: int, options: int, rate: float, generator: torch.Generator) -> Tensor:
    """Replace actions by random legal ones, with probability ``rate``; ``None``: all are random."""
    if actions is not None and rate <= 0.0:
        return actions
    coins, picks = torch.rand(2, n, device=generator.device, generator=generator)
    random = (picks * options).long().clamp_(max=options - 1)  # 1 − 2⁻²⁴ times the number may round up
    return random if actions is None else torch.where(coins < rate, random, actions)


def _blank_columns(spec: TeamSpec, n: int, device: torch.device) -> TensorColumns:
    """Return columns of ``n`` empty episodes, in which no agent is on turn."""
    steps = spec.max_steps
    columns: TensorColumns = {
        "reward": torch.zeros(n, steps, device=device),
        "terminated": torch.zeros(n, steps, dtype=torch.bool, device=device),
        "filled": torch.zeros(n, steps, dtype=torch.bool, device=device),
        "state": torch.empty(n, steps + 1, spec.state_size, device=device),
    }
    for agent, size, count in zip(spec.agents, spec.observation_sizes, spec.action_sizes, strict=True):
        columns[obs_key(agent)] = torch.empty(n, steps + 1, size, device=device)
        columns[mask_key(agent)] = torch.empty(n, steps + 1, count, dtype=torch.bool, device=device)
        columns[turn_key(agent)] = torch.zeros(n, steps + 1, dtype=torch.bool, device=device)
        columns[action_key(agent)] = torch.full((n, steps), count - 1, device=device)
    return columns


def _observe(columns: TensorColumns, env: TensorRecommender, step: TensorStep, t: int) -> None:
    """Store what is observed before step ``t``."""
    for agent in env.agents:
        columns[obs_key(agent)][:, t] = step.observations[agent]
        columns[mask_key(agent)][:, t] = step.masks[agent]
        if agent == env.agent_on_turn:
            columns[turn_key(agent)][:, t] = True
    columns["state"][:, t] = step.state
