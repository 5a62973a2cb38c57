"""The loss of a batch of episodes: the mixer's TD error (Eq. 15) and, if the preset has them, the agents' own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents import objectives
from agents.credit import credit_weights
from agents.team import Team, action_key, mask_key


def team_losses(
    online: Team,
    target: Team,
    batch: Mapping[str, Tensor],
    *,
    reward_scale: float | Tensor = 1.0,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Loss and diagnostics of a batch of episodes.

    Args:
        online, target: networks of the same preset.
        batch: columns ``obs:<agent>`` (B, T + 1, O), ``mask:<agent>`` (B, T + 1, A), ``action:<agent>`` (B, T),
            ``state`` (B, T + 1, S), ``reward``, ``terminated``, ``filled`` (B, T); rewards in currency.
        reward_scale: currency per unit of Q; rewards are divided by it.
        generator: source of REM's random mixture.

    Returns:
        Scalars: ``loss`` (to be minimised), ``mixer_loss``, ``agent_loss``, ``q_tot`` (mean, currency).
    """
    preset, names = online.preset, online.spec.agents
    reward = batch["reward"] / reward_scale
    filled, terminated = batch["filled"], batch["terminated"]
    actions = [batch[action_key(a)].long() for a in names]
    q, turns = online.unroll(batch)
    served = _served_weights(online, reward, generator)  # 1 1 K
    with torch.no_grad():
        target_q, _ = target.unroll(batch)
        choosers = q if preset.objective.double_q else target_q
        best = [
            objectives.greedy((served[..., None] * c).sum(2), batch[mask_key(a)])
            for a, c in zip(names, choosers, strict=True)
        ]
        next_q = [objectives.take(t, b) for t, b in zip(target_q, best, strict=True)]  # per agent B T+1 K

    chosen = [objectives.take(x[:, :-1], a) for x, a in zip(q, actions, strict=True)]  # per agent B T K
    here = [on[:, :-1] & filled for on in turns]
    errors = _own_errors(online, chosen, next_q, turns, actions, reward, filled, terminated)
    weights = [served] * len(errors)
    if preset.objective.head_weighting == "adaptive":
        level = preset.objective.weighting_level
        weights = [objectives.adaptive_weights(e, on, level) for e, on in zip(errors, here, strict=True)]

    agent_loss = reward.new_zeros(())
    if preset.objective.agent_loss:
        for error, weight, on in zip(errors, weights, here, strict=True):
            agent_loss = agent_loss + objectives.masked_mean((weight * error).sum(-1), on)

    used = torch.stack(
        [objectives.carry((w * c).sum(-1), on) for w, c, on in zip(weights, chosen, here, strict=True)], -1
    )
    q_tot = online.mix(used, batch["state"][:, :-1], actions)
    with torch.no_grad():
        next_tot = _next_team_value(target, served, target_q, next_q, best, turns, actions, batch)
        goal = objectives.td_target(reward, next_tot, terminated, preset.objective.gamma)
    mixer_loss = objectives.masked_mean((goal - q_tot) ** 2, filled)
    return {
        "loss": mixer_loss + preset.objective.agent_loss * agent_loss,
        "mixer_loss": mixer_loss.detach(),
        "agent_loss": agent_loss.detach(),
        "q_tot": (objectives.masked_mean(q_tot.detach(), filled) * reward_scale),
    }


def _own_errors(
    online: Team,
    chosen: list[Tensor],
    next_q: list[Tensor],
    turns: list[Tensor],
    actions: list[Tensor],
    reward: Tensor,
    filled: Tensor,
    terminated: Tensor,
) -> list[Tensor]:
    """Squared TD error L_k of every agent, step and head (Eq. 8), VGCA's reward included; per agent (B, T, K)."""
    options, credit = online.preset.objective, online.preset.credit.credit
    if options.agent_loss == 0 and options.head_weighting != "adaptive":
        return [torch.zeros_like(c) for c in chosen]
    returns = (reward * filled).sum(1)
    credits = None
    if credit != "none":
        here = [on[:, :-1] & filled for on in turns]
        credits = credit_weights(returns, actions, here, list(online.spec.action_sizes), credit)  # N T
    errors = []
    for g, (values, ahead, on) in enumerate(zip(chosen, next_q, turns, strict=True)):
        earned, following = objectives.own_turns(reward * filled, ahead, on, terminated)
        if credits is not None:
            earned = credits[g] * returns[:, None]
        errors.append((earned[..., None] + options.gamma * following - values) ** 2)
    return errors


def _served_weights(online: Team, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Heads as they are mixed when the next action is chosen and valued: REM's random mixture, else the mean."""
    heads = online.preset.network.heads
    if online.preset.objective.head_weighting == "random":
        return objectives.random_weights(heads, like, generator)
    return like.new_full((1, 1, heads), 1 / heads)


def _next_team_value(
    target: Team,
    served: Tensor,
    target_q: list[Tensor],
    next_q: list[Tensor],
    best: list[Tensor],
    turns: list[Tensor],
    actions: list[Tensor],
    batch: Mapping[str, Tensor],
) -> Tensor:
    """Q'_tot at the next step of the greedy team; agents not on turn keep the value of what they last did. (B, T)."""
    utilities = []
    for q, ahead, on, action in zip(target_q, next_q, turns, actions, strict=True):
        done = objectives.carry((served * objectives.take(q[:, :-1], action)).sum(-1), on[:, :-1])
        utilities.append(torch.where(on[:, 1:], (served * ahead[:, 1:]).sum(-1), done))
    return target.mix(torch.stack(utilities, -1), batch["state"][:, 1:], [b[:, 1:] for b in best])
