"""The loss of a batch of episodes: the mixer's temporal-difference (TD) error (Eq. 15) and the agents' own TD errors.

Algorithm 1 of the paper (arXiv 2512.24325) minimises the agents' losses and the mixer's loss one after the other, each
for its own weights. Here they are one sum, so that the mixer's error reaches the agents as it does in QMIX.
``agent_loss`` is the coefficient between the two. The other points on which the paper and its reference code differ
are options: see :mod:`agents.algorithms.options`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from agents.algorithms import td_targets
from agents.algorithms.credit import agent_loss_weights
from agents.team.agent_values import (
    AgentValues,
    agent_values,
    best_values,
    central_agent_values,
    next_team_value,
    next_utilities,
    waiting_utilities,
)
from agents.team.loss_weights import (
    central_weights,
    disagreement_weights,
    draw_head_mixture,
    step_credits,
    step_weights,
)
from agents.team.reward_statistics import CURRENCY, RewardUnits
from agents.team.team import Team, states
from agents.team.turn_plan import PLAN_KEY, plan_turns


def team_losses(
    online: Team,
    target: Team,
    batch: Mapping[str, Any],
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
            unless it is the concatenated observations; rewards in currency. On a GPU also ``host_columns``
            (:func:`agents.team.turn_plan.host_columns`), without which the GPU is waited for.
        units: how rewards become units of Q.
        generator: source of REM's random mixture.

    Returns:
        Scalars: ``loss`` (to be minimised, in units of Q), and in currency: ``mixer_loss`` and ``agent_loss`` (squared
        currency, except with ``mae``), ``q_tot`` (mean), ``td_error`` (mean |δ| of Q_tot, or of the agents where no
        mixer combines them), and with ``td_weighting`` ``central_loss`` (Q*'s).
    """
    preset = online.preset
    reward = (batch["reward"] - units.shift) / units.scale * batch["filled"]
    plan = plan_turns(online, batch)
    batch = {**batch, "state": states(online.spec, batch), "reward": reward, PLAN_KEY: plan}
    head_mixture = draw_head_mixture(preset, batch["reward"], generator)  # 1 1 K
    agents = agent_values(online, target, batch, head_mixture)
    credits = step_credits(online, agents, batch["reward"], units)
    agent_loss, td_error, weights = _agent_losses(online, agents, batch, head_mixture, credits)
    taken = [(w * a.q_taken).sum(-1) for w, a in zip(weights, agents, strict=True)]
    if preset.objective.head_weighting == "disagreement":  # the weights share out the gradient, not the value
        taken = [
            td_targets.with_gradient_of((head_mixture * a.q_taken).sum(-1), x)
            for a, x in zip(agents, taken, strict=True)
        ]
        weights = [head_mixture] * len(agents)
    utilities = waiting_utilities(preset, agents, taken)
    needs_best = online.mixes_joint_actions or preset.objective.td_weighting == "advantage"
    best = best_values(agents, utilities, weights) if needs_best else None
    deciders = torch.stack([a.is_acting for a in agents]).sum(0)
    q_tot = online.mix(utilities, batch["state"][:, :-1], [a.action for a in agents], best, deciders)  # B T
    results = {"mixer_loss": torch.zeros_like(agent_loss)}
    if preset.mixer.mixer != "none":
        loss_weights = step_weights(online, agents, batch, q_tot, best, credits)
        td_error, results = _mixer_losses(online, target, batch, agents, q_tot, head_mixture, loss_weights)
    loss = results["mixer_loss"] + results.get("central_loss", 0.0) + preset.objective.agent_loss * agent_loss
    loss_unit = units.scale if preset.objective.loss == "mae" else units.scale**2
    results = {name: value.detach() * loss_unit for name, value in (results | {"agent_loss": agent_loss}).items()}
    value = q_tot.detach() * units.scale + units.shift * _discounted_steps(
        batch["filled"], preset.objective.gamma, q_tot
    )
    return {
        **results,
        "td_error": td_error.detach() * units.scale,
        "loss": loss + _idle_weights(online, plan.idle),
        "q_tot": td_targets.masked_mean(value, batch["filled"]),
    }


def _agent_losses(
    online: Team, agents: list[AgentValues], batch: Mapping[str, Any], head_mixture: Tensor, credits: Tensor | None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the agents' own TD loss (a sum over agents), their mean |δ|, and the weights of their heads."""
    options, weights = online.preset.objective, [head_mixture] * len(agents)
    loss = head_mixture.new_zeros(())
    if options.head_weighting == "disagreement":
        weights = [disagreement_weights(a, options.weighting_level) for a in agents]
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
    turn_weights = None
    if credits is not None and online.preset.credit.credit_use == "weight":
        turn_weights = agent_loss_weights(credits, [a.is_acting for a in agents], online.preset.credit.credit_share)
    for g, (x, e, w, a) in enumerate(zip(losses, errors, weights, agents, strict=True)):
        agent_loss = td_targets.ensemble_loss(x, e, w, options.ensemble_loss, options.loss, options.huber_delta)
        if turn_weights is not None:
            agent_loss = agent_loss * turn_weights[g]
        loss = loss + td_targets.masked_mean(agent_loss, a.is_acting)
    sizes = [
        td_targets.masked_mean(e.detach().abs().mean(-1), a.is_acting) for e, a in zip(errors, agents, strict=True)
    ]
    return loss, torch.stack(sizes).mean(), weights


def _agent_errors(
    online: Team, agents: list[AgentValues], batch: Mapping[str, Any], credits: Tensor | None
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
            may_improve=a.is_acting if options.trace == "better" else None,
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
    batch: Mapping[str, Any],
    agents: list[AgentValues],
    q_tot: Tensor,
    head_mixture: Tensor,
    loss_weights: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean |δ| of Q_tot, its loss, and Q*'s loss if the team has a Q*, which then gives both targets.

    ``loss_weights`` (B, T) are those of credit and advantage; Q_tot's errors also have those of Weighted QMIX.
    """
    options, filled = online.preset.objective, batch["filled"]
    if options.mixer_target == "return":
        return _return_losses(online, batch, q_tot, loss_weights)
    state, next_state = batch["state"][:, :-1], batch["state"][:, 1:]
    central_values = (
        [] if online.central is None else central_agent_values(online.central, target.central, batch, agents)
    )
    with torch.no_grad():
        if central_values:
            next_value = target.central.mix(next_utilities(online.preset, central_values, head_mixture), next_state)
        else:
            next_value = next_team_value(target, agents, next_state, head_mixture)
        td_target = _team_target(online, batch, agents, next_value)
    error = td_target - q_tot
    losses = _weighted(loss_weights, td_targets.td_loss(error, options.loss, options.huber_delta))
    results: dict[str, Tensor] = {}
    if central_values:
        central_utilities = waiting_utilities(
            online.preset, central_values, [(head_mixture * c.q_taken).sum(-1) for c in central_values]
        )
        q_central = online.central.mix(central_utilities, state)
        losses = losses * central_weights(
            online, central_values, state, central_utilities, td_target, error, head_mixture
        )
        central_losses = td_targets.td_loss(td_target - q_central, options.loss, options.huber_delta)
        central_losses = _weighted(loss_weights, central_losses)
        results["central_loss"] = td_targets.masked_mean(central_losses, filled)
    results["mixer_loss"] = td_targets.masked_mean(losses, filled)
    return td_targets.masked_mean(error.detach().abs(), filled), results


def _team_target(online: Team, batch: Mapping[str, Any], agents: list[AgentValues], next_value: Tensor) -> Tensor:
    """Return the target of Q_tot, (B, T): after one step, or the λ-return of ``td_lambda``."""
    options, reward, terminated = online.preset.objective, batch["reward"], batch["terminated"]
    if options.td_lambda == 0:
        return td_targets.td_target(reward, next_value, terminated, options.gamma)
    is_kept = filled = batch["filled"]
    if options.trace != "all":
        greedy = [(a.action == a.next_action[:, :-1]) | ~a.is_acting for a in agents]
        is_kept = is_kept & torch.stack(greedy).all(0)
    return td_targets.lambda_targets(
        reward,
        next_value,
        terminated,
        is_kept,
        gamma=options.gamma,
        td_lambda=options.td_lambda,
        may_improve=filled if options.trace == "better" else None,
    )


def _weighted(weights: Tensor | None, values: Tensor) -> Tensor:
    return values if weights is None else weights * values


def _return_losses(
    online: Team, batch: Mapping[str, Any], q_tot: Tensor, loss_weights: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean |δ| and the loss of Q_tot at each episode's last step, whose target is the episode's reward."""
    options, filled = online.preset.objective, batch["filled"]
    is_last = filled & ~torch.nn.functional.pad(filled, (0, 1))[:, 1:]
    error = batch["reward"].sum(1, keepdim=True) - q_tot
    losses = _weighted(loss_weights, td_targets.td_loss(error, options.loss, options.huber_delta))
    return td_targets.masked_mean(error.detach().abs(), is_last), {
        "mixer_loss": td_targets.masked_mean(losses, is_last)
    }


def _discounted_steps(filled: Tensor, gamma: float, like: Tensor) -> Tensor:
    """Return the discounted number of steps from each to the end of its episode, (B, T), in the dtype of ``like``."""
    counts = []
    count = torch.zeros_like(like[:, 0])
    for t in reversed(range(filled.shape[1])):
        count = torch.where(filled[:, t], 1 + gamma * count, 0.0)
        counts.append(count)
    return torch.stack(counts[::-1], 1)


def _idle_weights(online: Team, idle: tuple[int, ...]) -> Tensor | float:
    """Return zero as a function of the weights that the batch did not use, those of the ``idle`` agents.

    Data-parallel training waits for the gradient of every weight, also of agents that never act in the batch.
    """
    teams = [online.agents] if online.central is None else [online.agents, online.central.agents]
    return sum((0.0 * p.sum() for networks in teams for g in idle for p in networks[g].parameters()), 0.0)
