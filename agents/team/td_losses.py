"""The loss of a batch of episodes: the mixer's TD error (Eq. 15) and, if the preset has them, the agents' own.

Algorithm 1 of the paper (arXiv 2512.24325) minimises the agents' losses and the mixer's one after the other, each for
its own weights. Here they are one sum, so that the mixer's error reaches the agents as it does in QMIX, and
``agent_loss`` is the coefficient between the two. The other points on which the paper and its reference code differ
are options: see :mod:`agents.algorithms.options`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.algorithms import td_targets
from agents.algorithms.credit import credit_weights
from agents.algorithms.presets import Preset
from agents.team.team import CentralValue, Team, action_key, mask_key, turns_of


@dataclass
class AgentValues:
    """What the losses need of one agent along the episodes of a batch; values are zero where no TD error uses them."""

    on_turn: Tensor
    """(B, T + 1) bool."""
    acts: Tensor
    """(B, T) bool, on turn at a step that was taken."""
    action: Tensor
    """(B, T) int64, taken."""
    best: Tensor
    """(B, T + 1) int64, greedy for the network that chooses: the online one with ``double_q``, else the target's."""
    greedy: Tensor
    """(B, T + 1) int64, greedy for the online network."""
    chosen: Tensor
    """(B, T, K) online value of ``action``."""
    held: Tensor
    """(B, T, K) target network's value of ``action``."""
    ahead: Tensor
    """(B, T + 1, K) target network's value of ``best``."""
    top: Tensor | None = None
    """(B, T, K) online value of ``greedy``; of Q* alone."""


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
        online, target: networks of the same preset, built with ``central=True``.
        batch: columns ``obs:<agent>`` (B, T + 1, O), ``mask:<agent>`` (B, T + 1, A), ``action:<agent>`` (B, T),
            ``state`` (B, T + 1, S), ``reward``, ``terminated``, ``filled`` (B, T); rewards in currency.
        reward_scale: currency per unit of Q; rewards are divided by it.
        generator: source of REM's random mixture.

    Returns:
        Scalars: ``loss`` (to be minimised), ``mixer_loss``, ``agent_loss``, ``q_tot`` (mean, currency), ``td_error``
        (mean |δ| of Q_tot, or of the agents where nothing mixes them, in currency), and with ``td_weighting``
        ``central_loss`` (Q*'s).
    """
    preset = online.preset
    batch = {**batch, "reward": batch["reward"] / reward_scale * batch["filled"]}
    served = _served_weights(preset, batch["reward"], generator)  # 1 1 K
    agents = team_values(online, target, batch, served)
    agent_loss, td_error, weights = _own_losses(online, agents, batch, served)
    used = [td_targets.carry((w * a.chosen).sum(-1), a.acts) for w, a in zip(weights, agents, strict=True)]
    q_tot = online.mix(torch.stack(used, -1), batch["state"][:, :-1], [a.action for a in agents])  # B T
    found = {"mixer_loss": torch.zeros_like(agent_loss), "td_error": td_error}
    if preset.mixer.mixer != "none":
        found = _mixer_losses(online, target, batch, agents, q_tot, served)
    loss = found["mixer_loss"] + found.get("central_loss", 0.0) + preset.objective.agent_loss * agent_loss
    found["td_error"] = found["td_error"] * reward_scale
    return {
        **{name: value.detach() for name, value in found.items()},
        "loss": loss + _idle_weights(online, agents),
        "agent_loss": agent_loss.detach(),
        "q_tot": td_targets.masked_mean(q_tot.detach(), batch["filled"]) * reward_scale,
    }


def team_values(online: Team, target: Team, batch: Mapping[str, Tensor], served: Tensor) -> list[AgentValues]:
    """The values of every agent; ``served`` (1, 1, K) weights the heads where the greedy actions are chosen."""
    used = [td_targets.used_steps(on, batch["filled"], batch["terminated"]) for on in turns_of(online.spec, batch)]
    double = online.preset.objective.double_q
    q, turns = online.unroll(batch, [own | ahead if double else own for own, ahead, _ in used])
    with torch.no_grad():
        target_q, _ = target.unroll(batch, [ahead | held for _, ahead, held in used])
    found = []
    for name, mine, theirs, on in zip(online.spec.agents, q, target_q, turns, strict=True):
        action, mask = batch[action_key(name)].long(), batch[mask_key(name)]
        with torch.no_grad():
            greedy = td_targets.greedy((served[..., None] * mine).sum(2), mask)
            best = greedy
            if not double:
                best = td_targets.greedy((served[..., None] * theirs).sum(2), mask)
        values = AgentValues(
            on_turn=on,
            acts=on[:, :-1] & batch["filled"],
            action=action,
            best=best,
            greedy=greedy,
            chosen=td_targets.take(mine[:, :-1], action),
            held=td_targets.take(theirs[:, :-1], action),
            ahead=td_targets.take(theirs, best),
        )
        found.append(values)
    return found


def central_values(
    online: CentralValue, target: CentralValue, batch: Mapping[str, Tensor], agents: list[AgentValues]
) -> list[AgentValues]:
    """Q*'s values of the same actions: those taken, and those that are greedy for the team (not for Q*)."""
    used = [td_targets.used_steps(a.on_turn, batch["filled"], batch["terminated"]) for a in agents]
    q, _ = online.unroll(batch, [own for own, _, _ in used])
    with torch.no_grad():
        target_q, _ = target.unroll(batch, [ahead | held for _, ahead, held in used])
    found = []
    for a, mine, theirs in zip(agents, q, target_q, strict=True):
        values = AgentValues(
            on_turn=a.on_turn,
            acts=a.acts,
            action=a.action,
            best=a.best,
            greedy=a.greedy,
            chosen=td_targets.take(mine[:, :-1], a.action),
            held=td_targets.take(theirs[:, :-1], a.action),
            ahead=td_targets.take(theirs, a.best),
            top=td_targets.take(mine[:, :-1].detach(), a.greedy[:, :-1]),
        )
        found.append(values)
    return found


def _own_losses(
    online: Team, agents: list[AgentValues], batch: Mapping[str, Tensor], served: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The agents' own TD loss (a sum over agents), their mean |δ|, and the weights of their heads in Q_tot."""
    options, weights = online.preset.objective, [served] * len(agents)
    loss = served.new_zeros(())
    if not (options.agent_loss or options.head_weighting == "adaptive"):
        return loss, loss, weights
    errors = _own_errors(online, agents, batch)
    losses = [td_targets.td_loss(e, options.loss, options.huber_delta) for e in errors]
    if options.head_weighting == "adaptive":
        level = options.weighting_level
        weights = [td_targets.adaptive_weights(x, a.acts, level) for x, a in zip(losses, agents, strict=True)]
    for x, w, a in zip(losses, weights, agents, strict=True):
        loss = loss + td_targets.masked_mean((w * x).sum(-1), a.acts)
    sizes = [td_targets.masked_mean(e.detach().abs().mean(-1), a.acts) for e, a in zip(errors, agents, strict=True)]
    return loss, torch.stack(sizes).mean(), weights


def _own_errors(online: Team, agents: list[AgentValues], batch: Mapping[str, Tensor]) -> list[Tensor]:
    """TD error δ_k of every agent, step and head (Eq. 8), VGCA's reward included; per agent (B, T, K)."""
    options, credit = online.preset.objective, online.preset.credit.credit
    reward, returns = batch["reward"], batch["reward"].sum(1)
    credits = None
    if credit != "none":
        actions, acts, sizes = [a.action for a in agents], [a.acts for a in agents], list(online.spec.action_sizes)
        credits = credit_weights(returns, actions, acts, sizes, credit)  # N T
    errors = []
    for g, a in enumerate(agents):
        ahead = a.ahead if options.head_target == "own" else a.ahead.mean(-1, keepdim=True).expand_as(a.ahead)
        earned, following = td_targets.own_turns(reward, ahead, a.on_turn, batch["terminated"])
        if credits is not None:
            earned = credits[g] * returns[:, None]
        errors.append(earned[..., None] + options.gamma * following - a.chosen)
    return errors


def _mixer_losses(
    online: Team,
    target: Team,
    batch: Mapping[str, Tensor],
    agents: list[AgentValues],
    q_tot: Tensor,
    served: Tensor,
) -> dict[str, Tensor]:
    """Loss and mean |δ| of Q_tot and, if there is one, the loss of Q*, which then gives the targets of both."""
    options, filled = online.preset.objective, batch["filled"]
    state, coming = batch["state"][:, :-1], batch["state"][:, 1:]
    stars = [] if online.central is None else central_values(online.central, target.central, batch, agents)
    with torch.no_grad():
        if stars:
            next_value = target.central.mix(_next_utilities(stars, served), coming)
        else:
            next_value = target.mix(_next_utilities(agents, served), coming, [a.best[:, 1:] for a in agents])
        goal = td_targets.td_target(batch["reward"], next_value, batch["terminated"], options.gamma)
    error = goal - q_tot
    losses = td_targets.td_loss(error, options.loss, options.huber_delta)
    found = {"td_error": td_targets.masked_mean(error.detach().abs(), filled)}
    if stars:
        done = torch.stack([td_targets.carry((served * s.chosen).sum(-1), s.acts) for s in stars], -1)
        star = online.central.mix(done, state)
        losses = losses * _td_weights(online, stars, state, done, goal, error, served)
        star_losses = td_targets.td_loss(goal - star, options.loss, options.huber_delta)
        found["central_loss"] = td_targets.masked_mean(star_losses, filled)
    return {"mixer_loss": td_targets.masked_mean(losses, filled), **found}


@torch.no_grad()
def _td_weights(
    online: Team, stars: list[AgentValues], state: Tensor, done: Tensor, goal: Tensor, error: Tensor, served: Tensor
) -> Tensor:
    """Weighted QMIX's weight of each TD error, per sample and step, (B, T); ``done`` (B, T, N) Q*'s utilities."""
    options = online.preset.objective
    if options.td_weighting == "optimistic":
        return td_targets.optimistic_weights(error, options.td_alpha)
    tops = torch.stack([(served * s.top).sum(-1) for s in stars if s.top is not None], -1)
    acts = torch.stack([s.acts for s in stars], -1)
    best = online.central.mix(torch.where(acts, tops, done), state)
    taken = torch.stack([s.action == s.greedy[:, :-1] for s in stars], -1)
    return td_targets.central_weights(goal, best, (taken | ~acts).all(-1), options.td_alpha)


def _served_weights(preset: Preset, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Heads as they are mixed when the next action is chosen and valued: REM's random mixture, else the mean."""
    heads = preset.network.heads
    if preset.objective.head_weighting == "random":
        return td_targets.random_weights(heads, like, generator)
    return like.new_full((1, 1, heads), 1 / heads)


def _next_utilities(agents: list[AgentValues], served: Tensor) -> Tensor:
    """What the greedy team is worth at the next step, agent by agent, (B, T, N); whoever is not on turn there keeps
    the value of what it last did."""
    utilities = []
    for a in agents:
        done = td_targets.carry((served * a.held).sum(-1), a.acts)
        utilities.append(torch.where(a.on_turn[:, 1:], (served * a.ahead[:, 1:]).sum(-1), done))
    return torch.stack(utilities, -1)


def _idle_weights(online: Team, agents: list[AgentValues]) -> Tensor | float:
    """Zero, but a function of the networks of agents that nobody of the batch used: data-parallel training waits for
    the gradient of every weight."""
    idle = [g for g, a in enumerate(agents) if not a.acts.any()]
    both = [online.agents] if online.central is None else [online.agents, online.central.agents]
    return sum((0.0 * p.sum() for networks in both for g in idle for p in networks[g].parameters()), 0.0)
