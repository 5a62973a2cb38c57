"""The loss of a batch of episodes: the mixer's temporal-difference (TD) error (Eq. 15) and the agents' own TD errors.

Algorithm 1 of the paper (arXiv 2512.24325) minimises the agents' losses and the mixer's loss one after the other, each
for its own weights. Here they are one sum, so that the mixer's error reaches the agents as it does in QMIX.
``agent_loss`` is the coefficient between the two. The other points on which the paper and its reference code differ
are options: see :mod:`agents.algorithms.options`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.algorithms import td_targets
from agents.algorithms.credit import agent_loss_weights, credit_weights, team_loss_weights
from agents.algorithms.presets import Preset
from agents.team.reward_statistics import CURRENCY, RewardUnits
from agents.team.team import CentralValue, Team, action_key, mask_key, on_turn_masks, states


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


def team_losses(
    online: Team,
    target: Team,
    batch: Mapping[str, Tensor],
    *,
    units: RewardUnits = CURRENCY,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Return the loss and diagnostics of a batch of episodes.

    Args:
        online: networks to be trained, built with ``central=True``.
        target: target networks of the same preset, built with ``central=True``.
        batch: columns ``obs:<agent>`` (B, T + 1, O), ``mask:<agent>`` (B, T + 1, A), ``action:<agent>`` (B, T),
            ``turn:<agent>`` (B, T + 1), ``reward``, ``terminated``, ``filled`` (B, T), and ``state`` (B, T + 1, S)
            unless it is the concatenated observations; rewards in currency.
        units: how rewards become units of Q.
        generator: source of REM's random mixture.

    Returns:
        Scalars: ``loss`` (to be minimised, in units of Q), and in currency: ``mixer_loss`` and ``agent_loss`` (squared
        currency, except with ``mae``), ``q_tot`` (mean), ``td_error`` (mean |δ| of Q_tot, or of the agents where no
        mixer combines them), and with ``td_weighting`` ``central_loss`` (Q*'s).
    """
    preset = online.preset
    reward = (batch["reward"] - units.shift) / units.scale * batch["filled"]
    batch = {**batch, "state": states(online.spec, batch), "reward": reward}
    head_mixture = _head_mixture(preset, batch["reward"], generator)  # 1 1 K
    agents = agent_values(online, target, batch, head_mixture)
    credits = _credits(online, agents, batch["reward"], units)
    agent_loss, td_error, weights = _agent_losses(online, agents, batch, head_mixture, credits)
    utilities = torch.stack(
        [td_targets.carry_forward((w * a.q_taken).sum(-1), a.is_acting) for w, a in zip(weights, agents, strict=True)],
        -1,
    )
    best = _best_values(agents, utilities, weights) if online.mixes_joint_actions else None
    q_tot = online.mix(utilities, batch["state"][:, :-1], [a.action for a in agents], best)  # B T
    results = {"mixer_loss": torch.zeros_like(agent_loss)}
    if preset.mixer.mixer != "none":
        td_error, results = _mixer_losses(online, target, batch, agents, q_tot, head_mixture, credits)
    loss = results["mixer_loss"] + results.get("central_loss", 0.0) + preset.objective.agent_loss * agent_loss
    loss_unit = units.scale if preset.objective.loss == "mae" else units.scale**2
    results = {name: value.detach() * loss_unit for name, value in (results | {"agent_loss": agent_loss}).items()}
    value = q_tot.detach() * units.scale + units.shift * _discounted_steps(
        batch["filled"], preset.objective.gamma, q_tot
    )
    return {
        **results,
        "td_error": td_error.detach() * units.scale,
        "loss": loss + _idle_weights(online, agents),
        "q_tot": td_targets.masked_mean(value, batch["filled"]),
    }


def agent_values(online: Team, target: Team, batch: Mapping[str, Tensor], head_mixture: Tensor) -> list[AgentValues]:
    """Return the values of every agent; ``head_mixture`` (1, 1, K) weights the heads when actions are chosen."""
    used = [td_targets.used_steps(on, batch["filled"], batch["terminated"]) for on in on_turn_masks(online.spec, batch)]
    double = online.preset.objective.double_q
    q, turns = online.unroll(batch, [acting | next_ if double else acting for acting, next_, _ in used])
    with torch.no_grad():
        target_q, _ = target.unroll(batch, [next_ | carried for _, next_, carried in used])
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
    online: CentralValue, target: CentralValue, batch: Mapping[str, Tensor], agents: list[AgentValues]
) -> list[AgentValues]:
    """Return Q*'s values of the actions taken and of the actions that are greedy for the team (not for Q*)."""
    used = [td_targets.used_steps(a.on_turn, batch["filled"], batch["terminated"]) for a in agents]
    q, _ = online.unroll(batch, [acting for acting, _, _ in used])
    with torch.no_grad():
        target_q, _ = target.unroll(batch, [next_ | carried for _, next_, carried in used])
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


def _agent_losses(
    online: Team, agents: list[AgentValues], batch: Mapping[str, Tensor], head_mixture: Tensor, credits: Tensor | None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the agents' own TD loss (a sum over agents), their mean |δ|, and the weights of their heads in Q_tot."""
    options, weights = online.preset.objective, [head_mixture] * len(agents)
    loss = head_mixture.new_zeros(())
    if options.head_weighting == "disagreement":
        weights = [_disagreement_weights(a, options.weighting_level) for a in agents]
    if not (options.agent_loss or options.head_weighting == "adaptive"):
        return loss, loss, weights
    errors = _agent_errors(online, agents, batch, credits)
    losses = [td_targets.td_loss(e, options.loss, options.huber_delta) for e in errors]
    if options.head_weighting == "adaptive":
        level, gradient = options.weighting_level, options.weighting_gradient
        weights = [
            td_targets.adaptive_weights(x, a.is_acting, level, differentiable=gradient)
            for x, a in zip(losses, agents, strict=True)
        ]
    step_weights = None
    if credits is not None and online.preset.credit.credit_use == "weight":
        step_weights = agent_loss_weights(credits, [a.is_acting for a in agents], online.preset.credit.credit_share)
    for g, (x, e, w, a) in enumerate(zip(losses, errors, weights, agents, strict=True)):
        agent_loss = td_targets.ensemble_loss(x, e, w, options.ensemble_loss, options.loss, options.huber_delta)
        if step_weights is not None:
            agent_loss = agent_loss * step_weights[g]
        loss = loss + td_targets.masked_mean(agent_loss, a.is_acting)
    sizes = [
        td_targets.masked_mean(e.detach().abs().mean(-1), a.is_acting) for e, a in zip(errors, agents, strict=True)
    ]
    return loss, torch.stack(sizes).mean(), weights


def _disagreement_weights(agent: AgentValues, level: str) -> Tensor:
    """Return the weights of an agent's heads by their disagreement at each state, (B, T, K) or (1, 1, K)."""
    disagreement = td_targets.head_disagreement(agent.q[:, :-1], agent.mask[:, :-1])
    return td_targets.adaptive_weights(disagreement, agent.is_acting, level)


def _credits(online: Team, agents: list[AgentValues], reward: Tensor, units: RewardUnits) -> Tensor | None:
    """Return VGCA's w_t of each agent and step (N, T), ``None`` without credit; ``reward`` (B, T) in units of Q."""
    credit = online.preset.credit.credit
    if credit == "none":
        return None
    actions, acting = [a.action for a in agents], [a.is_acting for a in agents]
    standardised = reward.sum(1) * (units.scale / units.return_scale)  # variances must not depend on the units of Q
    return credit_weights(standardised, actions, acting, list(online.spec.action_sizes), credit)


def _agent_errors(
    online: Team, agents: list[AgentValues], batch: Mapping[str, Tensor], credits: Tensor | None
) -> list[Tensor]:
    """Return the TD error δ_k of every agent, step and head (Eq. 8), with VGCA's reward; per agent (B, T, K)."""
    options, reward = online.preset.objective, batch["reward"]
    returns = reward.sum(1)
    errors = []
    for g, a in enumerate(agents):
        bootstrap = a.bootstrap
        if options.head_target != "own":
            bootstrap = bootstrap.mean(-1, keepdim=True).expand_as(bootstrap)
        is_kept = a.is_acting if options.trace == "all" else a.is_acting & (a.action == a.next_action[:, :-1])
        collected, next_value = td_targets.own_turn_process(
            reward,
            bootstrap,
            a.on_turn,
            batch["terminated"],
            is_kept=is_kept,
            gamma=options.gamma,
            td_lambda=options.td_lambda,
        )
        if credits is not None and online.preset.credit.credit_use == "reward":
            collected = credits[g] * returns[:, None]
        errors.append(collected[..., None] + options.gamma * next_value - a.q_taken)
    return errors


def _mixer_losses(
    online: Team,
    target: Team,
    batch: Mapping[str, Tensor],
    agents: list[AgentValues],
    q_tot: Tensor,
    head_mixture: Tensor,
    credits: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean |δ| of Q_tot, its loss, and Q*'s loss if the team has a Q*, which then gives both targets."""
    options, filled = online.preset.objective, batch["filled"]
    step_weights = _step_weights(online, agents, filled, credits)
    if options.mixer_target == "return":
        return _return_losses(online, batch, q_tot, step_weights)
    state, next_state = batch["state"][:, :-1], batch["state"][:, 1:]
    central_values = (
        [] if online.central is None else central_agent_values(online.central, target.central, batch, agents)
    )
    with torch.no_grad():
        if central_values:
            next_value = target.central.mix(_next_utilities(central_values, head_mixture), next_state)
        else:
            next_value = _next_team_value(target, agents, next_state, head_mixture)
        td_target = _team_target(online, batch, agents, next_value)
    error = td_target - q_tot
    losses = td_targets.td_loss(error, options.loss, options.huber_delta)
    if step_weights is not None:
        losses = losses * step_weights
    results: dict[str, Tensor] = {}
    if central_values:
        central_utilities = torch.stack(
            [td_targets.carry_forward((head_mixture * c.q_taken).sum(-1), c.is_acting) for c in central_values], -1
        )
        q_central = online.central.mix(central_utilities, state)
        losses = losses * _td_weights(online, central_values, state, central_utilities, td_target, error, head_mixture)
        central_losses = td_targets.td_loss(td_target - q_central, options.loss, options.huber_delta)
        if step_weights is not None:
            central_losses = central_losses * step_weights
        results["central_loss"] = td_targets.masked_mean(central_losses, filled)
    results["mixer_loss"] = td_targets.masked_mean(losses, filled)
    return td_targets.masked_mean(error.detach().abs(), filled), results


def _next_team_value(target: Team, agents: list[AgentValues], next_state: Tensor, head_mixture: Tensor) -> Tensor:
    """Return the target network's value of the greedy team action at each next observation, (B, T)."""
    utilities = _next_utilities(agents, head_mixture)
    next_actions = [a.next_action[:, 1:] for a in agents]
    if not target.mixes_joint_actions:
        return target.mix(utilities, next_state, next_actions)
    best = []
    for g, a in enumerate(agents):
        q, mask = a.target_q[:, 1:], a.mask[:, 1:]
        best.append(_best_value(q, mask, head_mixture, a.on_turn[:, 1:], next_actions[g], utilities[..., g]))
    return target.mix(utilities, next_state, next_actions, torch.stack(best, -1))


def _team_target(online: Team, batch: Mapping[str, Tensor], agents: list[AgentValues], next_value: Tensor) -> Tensor:
    """Return the target of Q_tot, (B, T): after one step, or with ``td_lambda`` along the greedy part of the episode."""
    options, reward, terminated = online.preset.objective, batch["reward"], batch["terminated"]
    if options.td_lambda == 0:
        return td_targets.td_target(reward, next_value, terminated, options.gamma)
    is_kept = batch["filled"]
    if options.trace == "greedy":
        greedy = [(a.action == a.next_action[:, :-1]) | ~a.is_acting for a in agents]
        is_kept = is_kept & torch.stack(greedy).all(0)
    return td_targets.lambda_targets(reward, next_value, terminated, is_kept, options.gamma, options.td_lambda)


def _step_weights(online: Team, agents: list[AgentValues], filled: Tensor, credits: Tensor | None) -> Tensor | None:
    """Return the credit of each step as a weight of the team's loss, (B, T); ``None`` without such weights."""
    options = online.preset.credit
    if credits is None or options.credit_use != "weight":
        return None
    return team_loss_weights(credits, [a.is_acting for a in agents], filled, options.credit_share)


@torch.no_grad()
def _best_values(agents: list[AgentValues], utilities: Tensor, weights: list[Tensor]) -> Tensor:
    """Return the value of each agent's best legal action, (B, T, N); of an agent that waits, the value it carries."""
    best = []
    for g, (a, w) in enumerate(zip(agents, weights, strict=True)):
        best.append(_best_value(a.q[:, :-1], a.mask[:, :-1], w, a.is_acting, a.action, utilities[..., g]))
    return torch.stack(best, -1)


def _best_value(
    q: Tensor, mask: Tensor, weights: Tensor, chooses: Tensor, action: Tensor, utility: Tensor
) -> Tensor:
    """Return an agent's best legal value, max_a Σ_k η_k Q_k(a), where it ``chooses``, else its ``utility``; (B, T).

    Where the action is the best one, it is the utility itself, so that rounding makes no advantage of it.
    """
    value, best_action = (weights[..., None] * q).sum(2).masked_fill(~mask, -torch.inf).max(-1)
    return torch.where(chooses & (action != best_action), value, utility)


def _return_losses(
    online: Team, batch: Mapping[str, Tensor], q_tot: Tensor, step_weights: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean |δ| and the loss of Q_tot at each episode's last step, whose target is the episode's reward."""
    options, filled = online.preset.objective, batch["filled"]
    is_last = filled & ~torch.nn.functional.pad(filled, (0, 1))[:, 1:]
    error = batch["reward"].sum(1, keepdim=True) - q_tot
    losses = td_targets.td_loss(error, options.loss, options.huber_delta)
    if step_weights is not None:
        losses = losses * step_weights
    return td_targets.masked_mean(error.detach().abs(), is_last), {
        "mixer_loss": td_targets.masked_mean(losses, is_last)
    }


@torch.no_grad()
def _td_weights(
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


def _head_mixture(preset: Preset, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return the head weights with which the next action is chosen and valued: REM's random mixture, else the mean."""
    heads = preset.network.heads
    if preset.objective.head_weighting == "random":
        return td_targets.random_weights(heads, like, generator)
    return like.new_full((1, 1, heads), 1 / heads)


def _next_utilities(agents: list[AgentValues], head_mixture: Tensor) -> Tensor:
    """Return each agent's value of the greedy team action at the next step, (B, T, N).

    An agent that is not on turn at the next step keeps the value of its latest action.
    """
    utilities = []
    for a in agents:
        latest = td_targets.carry_forward((head_mixture * a.target_q_taken).sum(-1), a.is_acting)
        utilities.append(torch.where(a.on_turn[:, 1:], (head_mixture * a.target_q_next[:, 1:]).sum(-1), latest))
    return torch.stack(utilities, -1)


def _discounted_steps(filled: Tensor, gamma: float, like: Tensor) -> Tensor:
    """Return the discounted number of steps from each to the end of its episode, (B, T), in the dtype of ``like``."""
    counts = []
    count = torch.zeros_like(like[:, 0])
    for t in reversed(range(filled.shape[1])):
        count = torch.where(filled[:, t], 1 + gamma * count, 0.0)
        counts.append(count)
    return torch.stack(counts[::-1], 1)


def _idle_weights(online: Team, agents: list[AgentValues]) -> Tensor | float:
    """Return zero as a function of the weights that the batch did not use.

    Data-parallel training waits for the gradient of every weight, also of agents that never act in the batch.
    """
    idle = [g for g, a in enumerate(agents) if not a.is_acting.any()]
    teams = [online.agents] if online.central is None else [online.agents, online.central.agents]
    return sum((0.0 * p.sum() for networks in teams for g in idle for p in networks[g].parameters()), 0.0)
