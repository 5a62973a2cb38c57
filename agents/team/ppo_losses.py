"""Proximal policy optimisation of a team with a central value: advantages, and the clipped loss of whole episodes.

Schulman et al. (2017) for the loss, Yu et al. (2022, MAPPO) for the value on the state. The reward is the team's, so
that all agents share one advantage of each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.algorithms.td_targets import masked_mean


@dataclass(frozen=True)
class PPOSettings:
    """Coefficients of the loss, by RLlib's names."""

    lambda_: float = 0.95
    """λ of the generalised advantage estimate; 1: the whole return."""
    clip_param: float = 0.2
    """Largest change of the probability ratio that pays."""
    entropy_coeff: float = 0.01
    """Coefficient of the policies' entropy."""
    vf_loss_coeff: float = 0.5
    """Coefficient of the value's loss."""
    vf_clip_param: float = 10.0
    """Largest squared error of the value that counts, in its normalised unit."""


def masked_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Return logits (…, A) at the smallest finite number where ``mask`` forbids the action.

    −∞ would make the entropy nan. Where nothing is legal, everything is.
    """
    legal = mask | ~mask.any(-1, keepdim=True)
    return logits.masked_fill(~legal, torch.finfo(logits.dtype).min)


def log_probabilities(logits: Tensor, mask: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log probability of actions and the entropy of the policy over legal actions.

    Args:
        logits: (…, A).
        mask: (…, A) bool.
        actions: (…) int64.

    Returns:
        (…) and (…).
    """
    logs = torch.log_softmax(masked_logits(logits, mask), -1)
    entropy = -(logs.exp() * logs.masked_fill(~mask, 0.0)).sum(-1)
    return logs.gather(-1, actions[..., None]).squeeze(-1), entropy


def advantages(
    reward: Tensor, values: Tensor, terminated: Tensor, filled: Tensor, *, gamma: float, lambda_: float
) -> Tensor:
    """Return the generalised advantage estimate of each step (Schulman et al., 2016).

    Args:
        reward: (B, T), the team's.
        values: (B, T + 1) of the states before and after each step.
        terminated: (B, T) bool, steps after which there is no value.
        filled: (B, T) bool, steps of the episode. A truncated episode is valued at its last state.
        gamma: discount of a step.
        lambda_: weight of longer returns.

    Returns:
        (B, T), zero after the end of the episode.
    """
    result, ahead = torch.zeros_like(reward), torch.zeros_like(reward[:, 0])
    going_on = ~terminated & filled
    errors = reward + gamma * values[:, 1:] * going_on - values[:, :-1]
    continues = torch.nn.functional.pad(filled, (0, 1))[:, 1:] & going_on
    for t in reversed(range(reward.shape[1])):
        ahead = (errors[:, t] + gamma * lambda_ * ahead * continues[:, t]) * filled[:, t]
        result[:, t] = ahead
    return result


@dataclass(frozen=True)
class Decisions:
    """Decisions of one agent in a batch of episodes."""

    logits: Tensor
    """(B, T, A) of the policy that learns."""
    mask: Tensor
    """(B, T, A) bool, legal actions."""
    action: Tensor
    """(B, T) int64."""
    is_acting: Tensor
    """(B, T) bool; steps at which the agent only waits are not learnt from."""
    old_log: Tensor
    """(B, T), log probability of the action when it was taken."""


def ppo_losses(
    agents: Sequence[Decisions], value: Tensor, batch: Mapping[str, Tensor], settings: PPOSettings
) -> dict[str, Tensor]:
    """Return the loss of a minibatch and its parts; decisions of all agents weigh the same.

    Args:
        agents: decisions of each agent.
        value: (B, T), normalised.
        batch: ``advantage`` (B, T), ``value_target`` (B, T), normalised as ``value``, and ``filled`` (B, T).
        settings: coefficients.

    Returns:
        Scalars ``loss``, ``policy_loss``, ``value_loss``, ``entropy`` and ``clipped``, the share of decisions whose
        ratio lay outside the clipping range.
    """
    logs, entropies, old_logs, gains = [], [], [], []
    for agent in agents:
        at = agent.is_acting
        log, entropy = log_probabilities(agent.logits[at], agent.mask[at], agent.action[at])
        logs.append(log)
        entropies.append(entropy)
        old_logs.append(agent.old_log[at])
        gains.append(batch["advantage"][at])
    ratio, gain, clip = torch.exp(torch.cat(logs) - torch.cat(old_logs)), torch.cat(gains), settings.clip_param
    count = max(1, len(ratio))
    policy_loss = -torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain).sum() / count
    entropy = torch.cat(entropies).sum() / count
    errors = (value - batch["value_target"]).square().clamp(max=settings.vf_clip_param)
    value_loss = masked_mean(errors, batch["filled"])
    loss = policy_loss + settings.vf_loss_coeff * value_loss - settings.entropy_coeff * entropy
    parts = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    parts["clipped"] = ((ratio - 1).abs() > clip).sum() / count
    return {"loss": loss} | {name: part.detach() for name, part in parts.items()}
