"""Weights of heads, of steps and of samples in the loss of a team."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.algorithms import td_targets
from agents.algorithms.credit import credit_weights, team_loss_weights
from agents.algorithms.presets import Preset
from agents.team.agent_values import AgentValues
from agents.team.reward_statistics import RewardUnits
from agents.team.team import Team


def draw_head_mixture(preset: Preset, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return the head weights with which the next action is chosen and valued: REM's random mixture, else the mean."""
    heads = preset.network.heads
    if preset.objective.head_weighting == "random":
        return td_targets.random_weights(heads, like, generator)
    return like.new_full((1, 1, heads), 1 / heads)


def disagreement_weights(agent: AgentValues, level: str) -> Tensor:
    """Return the weights of an agent's heads by their disagreement at each state, (B, T, K) or (1, 1, K)."""
    disagreement = td_targets.head_disagreement(agent.q[:, :-1], agent.mask[:, :-1])
    return td_targets.adaptive_weights(disagreement, agent.is_acting, level)


def step_credits(online: Team, agents: list[AgentValues], reward: Tensor, units: RewardUnits) -> Tensor | None:
    """Return VGCA's w_t of each agent and step (N, T), ``None`` without credit; ``reward`` (B, T) in units of Q."""
    credit = online.preset.credit.credit
    if credit == "none":
        return None
    actions, acting = [a.action for a in agents], [a.is_acting for a in agents]
    standardised = reward.sum(1) * (units.scale / units.return_scale)  # variances must not depend on the units of Q
    return credit_weights(standardised, actions, acting, list(online.spec.action_sizes), credit)


@torch.no_grad()
def step_weights(
    online: Team,
    agents: list[AgentValues],
    batch: Mapping[str, Tensor],
    q_tot: Tensor,
    best: Tensor | None,
    credits: Tensor | None,
) -> Tensor | None:
    """Return the weight of the team's loss at each step, (B, T): of credit and of advantage; ``None`` without both.

    Args:
        online: the team.
        agents: their values.
        batch: columns of the episodes.
        q_tot: (B, T) value of the joint actions taken.
        best: (B, T, N) values of the agents' best actions; needed with ``td_weighting`` ``advantage``.
        credits: (N, T) w_t, ``None`` without credit.
    """
    weights, options = None, online.preset.credit
    if credits is not None and options.credit_use == "weight":
        weights = team_loss_weights(credits, [a.is_acting for a in agents], batch["filled"], options.credit_share)
    if online.preset.objective.td_weighting == "advantage":
        assert best is not None
        actions = [torch.where(a.is_acting, a.greedy_action[:, :-1], a.action) for a in agents]
        best_value = online.mix(best, batch["state"][:, :-1], actions, best)
        alpha = online.preset.objective.td_alpha
        by_advantage = td_targets.advantage_weights(q_tot, best_value, batch["filled"], alpha)
        weights = by_advantage if weights is None else weights * by_advantage
    return weights


@torch.no_grad()
def central_weights(
    online: Team,
    central_values: list[AgentValues],
    state: Tensor,
    central_utilities: Tensor,
    td_target: Tensor,
    error: Tensor,
    head_mixture: Tensor,
) -> Tensor:
    """Return Weighted QMIX's weight of each TD error, per sample and step (B, T); ``central_utilities`` (B, T, N)."""
    options = online.preset.objective
    if options.td_weighting == "optimistic":
        return td_targets.optimistic_weights(error, options.td_alpha)
    greedy_utilities = torch.stack(
        [(head_mixture * c.q_greedy).sum(-1) for c in central_values if c.q_greedy is not None], -1
    )
    is_acting = torch.stack([c.is_acting for c in central_values], -1)
    greedy_value = online.central.mix(torch.where(is_acting, greedy_utilities, central_utilities), state)
    greedy_taken = torch.stack([c.action == c.greedy_action[:, :-1] for c in central_values], -1)
    return td_targets.central_weights(td_target, greedy_value, (greedy_taken | ~is_acting).all(-1), options.td_alpha)
