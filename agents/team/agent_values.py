"""Values of the agents in a batch of episodes: of what they did, of what they would do, and of the next step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.algorithms import td_targets
from agents.algorithms.presets import Preset
from agents.team.team import CentralValue, Team, action_key, mask_key, on_turn_masks
from agents.team.turn_plan import PLAN_KEY, TurnPlan


@dataclass
class AgentValues:
    """Actions and values of one agent in a batch of episodes; values are zero where no TD error uses them."""

    on_turn: Tensor
    """(B, T + 1) bool."""
    is_acting: Tensor
    """(B, T) bool, on turn at a step that was taken."""
    action: Tensor
    """(B, T) int64, action taken."""
    next_action: Tensor
    """(B, T + 1) int64, greedy for the network that chooses: the online network with ``double_q``, else the target."""
    greedy_action: Tensor
    """(B, T + 1) int64, greedy for the online network."""
    q_taken: Tensor
    """(B, T, K) online value of ``action``."""
    target_q_taken: Tensor
    """(B, T, K) target network's value of ``action``."""
    target_q_next: Tensor
    """(B, T + 1, K) target network's value of ``next_action``."""
    bootstrap: Tensor
    """(B, T + 1, K) target network's value from which each head learns: of ``next_action``, or of the action that is
    best by the head itself (``head_action``)."""
    q: Tensor
    """(B, T + 1, K, A) online values of all actions."""
    target_q: Tensor
    """(B, T + 1, K, A) target network's values of all actions."""
    mask: Tensor
    """(B, T + 1, A) bool, legal actions."""
    q_greedy: Tensor | None = None
    """(B, T, K) online value of ``greedy_action``; only for Q*."""


def agent_values(online: Team, target: Team, batch: Mapping[str, Any], head_mixture: Tensor) -> list[AgentValues]:
    """Return the values of every agent.

    Args:
        online: networks to be trained.
        target: target networks.
        batch: columns of episodes, and their plan.
        head_mixture: (1, 1, K), weights of the heads when actions are chosen.
    """
    plan: TurnPlan = batch[PLAN_KEY]
    double, turns = online.preset.objective.double_q, on_turn_masks(online.spec, batch)
    q = online.unroll_planned(batch, plan.online)
    with torch.no_grad():
        target_q = target.unroll_planned(batch, plan.target)
    agents = []
    for name, q_online, q_target, on_turn in zip(online.spec.agents, q, target_q, turns, strict=True):
        action, mask = batch[action_key(name)].long(), batch[mask_key(name)]
        with torch.no_grad():
            greedy_action = td_targets.greedy((head_mixture[..., None] * q_online).sum(2), mask)
            next_action = greedy_action
            if not double:
                next_action = td_targets.greedy((head_mixture[..., None] * q_target).sum(2), mask)
            target_q_next = td_targets.take(q_target, next_action)
            bootstrap = target_q_next
            if online.preset.objective.head_action == "own":
                own_actions = td_targets.greedy(q_online if double else q_target, mask[..., None, :])  # B T+1 K
                bootstrap = q_target.gather(-1, own_actions[..., None]).squeeze(-1)
        values = AgentValues(
            on_turn=on_turn,
            is_acting=on_turn[:, :-1] & batch["filled"],
            action=action,
            next_action=next_action,
            greedy_action=greedy_action,
            q_taken=td_targets.take(q_online[:, :-1], action),
            target_q_taken=td_targets.take(q_target[:, :-1], action),
            target_q_next=target_q_next,
            bootstrap=bootstrap,
            q=q_online,
            target_q=q_target,
            mask=mask,
        )
        agents.append(values)
    return agents


def central_agent_values(
    online: CentralValue, target: CentralValue, batch: Mapping[str, Any], agents: list[AgentValues]
) -> list[AgentValues]:
    """Return Q*'s values of the actions taken and of the actions that are greedy for the team (not for Q*)."""
    plan = batch[PLAN_KEY]
    q = online.unroll_planned(batch, plan.central)
    with torch.no_grad():
        target_q = target.unroll_planned(batch, plan.target)
    central_values = []
    for a, q_online, q_target in zip(agents, q, target_q, strict=True):
        values = dataclasses.replace(
            a,
            q_taken=td_targets.take(q_online[:, :-1], a.action),
            target_q_taken=td_targets.take(q_target[:, :-1], a.action),
            target_q_next=td_targets.take(q_target, a.next_action),
            q_greedy=td_targets.take(q_online[:, :-1].detach(), a.greedy_action[:, :-1]),
        )
        central_values.append(values)
    return central_values


@torch.no_grad()
def best_values(agents: list[AgentValues], utilities: Tensor, weights: list[Tensor]) -> Tensor:
    """Return the value of each agent's best legal action, (B, T, N); of an agent that waits, its utility."""
    best = []
    for g, (a, w) in enumerate(zip(agents, weights, strict=True)):
        best.append(best_value(a.q[:, :-1], a.mask[:, :-1], w, a.is_acting, a.action, utilities[..., g]))
    return torch.stack(best, -1)


def best_value(q: Tensor, mask: Tensor, weights: Tensor, chooses: Tensor, action: Tensor, utility: Tensor) -> Tensor:
    """Return an agent's best legal value, max_a Σ_k η_k Q_k(a), where it ``chooses``, else its ``utility``; (B, T).

    Where the action is the best one, it is the utility itself, so that rounding makes no advantage of it.
    """
    value, best_action = (weights[..., None] * q).sum(2).masked_fill(~mask, -torch.inf).max(-1)
    return torch.where(chooses & (action != best_action), value, utility)


def waiting_utilities(preset: Preset, agents: list[AgentValues], values: list[Tensor]) -> Tensor:
    """Return what each agent adds at each step, (B, T, N), from its values of its actions, N times (B, T)."""
    kind, rounds = preset.mixer.waiting_values, _rounds(preset, [a.on_turn[:, :-1] for a in agents])
    utilities = [td_targets.waiting_values(x, a.is_acting, kind, rounds) for x, a in zip(values, agents, strict=True)]
    return torch.stack(utilities, -1)


def _rounds(preset: Preset, turns: list[Tensor]) -> Tensor | None:
    """Return the round of each step where values are carried to its end; elsewhere nobody needs it."""
    return td_targets.turn_rounds(turns) if preset.mixer.waiting_values == "round" else None


def next_utilities(preset: Preset, agents: list[AgentValues], head_mixture: Tensor) -> Tensor:
    """Return each agent's value of the greedy team action at the next step, (B, T, N).

    An agent that is not on turn at the next step keeps the value of its latest action, or has none
    (``waiting_values``).
    """
    utilities, kind = [], preset.mixer.waiting_values
    rounds = _rounds(preset, [a.on_turn for a in agents])
    for a in agents:
        value = (head_mixture * a.target_q_next[:, 1:]).sum(-1)
        latest = torch.zeros_like(value)
        if kind != "zero":
            latest = td_targets.carry_forward((head_mixture * a.target_q_taken).sum(-1), a.is_acting, rounds)
        utilities.append(torch.where(a.on_turn[:, 1:], value, latest))
    return torch.stack(utilities, -1)


def next_team_value(target: Team, agents: list[AgentValues], next_state: Tensor, head_mixture: Tensor) -> Tensor:
    """Return the target network's value of the greedy team action at each next observation, (B, T)."""
    utilities = next_utilities(target.preset, agents, head_mixture)
    next_actions = [a.next_action[:, 1:] for a in agents]
    if not target.mixes_joint_actions:
        return target.mix(utilities, next_state, next_actions)
    best = []
    for g, a in enumerate(agents):
        q, mask = a.target_q[:, 1:], a.mask[:, 1:]
        best.append(best_value(q, mask, head_mixture, a.on_turn[:, 1:], next_actions[g], utilities[..., g]))
    deciders = torch.stack([a.on_turn[:, 1:] for a in agents]).sum(0)
    return target.mix(utilities, next_state, next_actions, torch.stack(best, -1), deciders)
