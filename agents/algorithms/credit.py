"""Variance-guided credit assignment (VGCA, Eq. 16): decisions that move revenue more get a stronger signal."""

from __future__ import annotations

import torch
from torch import Tensor

CREDITS = ("none", "variance", "cumulative")
CREDIT_USES = ("reward", "weight")


def action_variance(returns: Tensor, actions: Tensor, on_turn: Tensor, n_actions: int) -> Tensor:
    """Return Var_{j ∈ A} E[R | a = j] over the actions that the batch contains, at every step.

    Args:
        returns: (B,) return of each episode.
        actions: (B, …) actions taken, at one step or at several.
        on_turn: (B, …) bool, False where the agent did not act.
        n_actions: A, number of actions of the agent.

    Returns:
        (…); zero where fewer than two actions occur. Every action counts once, however often it was taken.
    """
    steps = actions.shape[1:].numel()
    first = n_actions * torch.arange(steps, device=actions.device)
    slots = (actions.reshape(len(actions), steps) + first).flatten()  # one for each step and action
    weight = on_turn.reshape(len(actions), steps).to(returns.dtype)
    count = returns.new_zeros(steps * n_actions).index_add_(0, slots, weight.flatten())
    total = returns.new_zeros(steps * n_actions).index_add_(0, slots, (returns[:, None] * weight).flatten())
    occurs = (count > 0).view(steps, n_actions)
    mean = (total / count.clamp(min=1)).view(steps, n_actions)
    n_occurring = occurs.sum(1, keepdim=True).clamp(min=1)
    centre = (mean * occurs).sum(1, keepdim=True) / n_occurring
    variance = (((mean - centre) ** 2) * occurs).sum(1) / n_occurring[:, 0]
    return variance.view(actions.shape[1:])


def credit_weights(
    returns: Tensor, actions: list[Tensor], on_turn: list[Tensor], n_actions: list[int], form: str = "variance"
) -> Tensor:
    """Return w_t of each agent and step; the step's TD target contains the episode's return times w_t.

    ``variance`` is the paper's weight, the variance itself. ``cumulative`` is the weight of its reference code:
    w_t = Σ_{u ≤ t} Var_u / Σ_u Var_u over the turns of each agent, which ends at 1; an agent with a single turn learns
    from the whole return.

    Args:
        returns: (B,) return of each episode.
        actions: per agent (B, T).
        on_turn: per agent (B, T) bool.
        n_actions: number of actions, per agent.
        form: ``variance`` or ``cumulative``.

    Returns:
        (N, T), on the scale of ``returns`` squared (``variance``) or in [0, 1] (``cumulative``).
    """
    agents = zip(actions, on_turn, n_actions, strict=True)
    variances = torch.stack([action_variance(returns, a, on, n) for a, on, n in agents])
    if form == "variance":
        return variances
    running = variances.cumsum(1)
    total = running[:, -1:]
    return torch.where(total > 0, running / total.clamp(min=torch.finfo(total.dtype).tiny), torch.ones_like(running))


def agent_loss_weights(credits: Tensor, on_turn: list[Tensor], share: float) -> Tensor:
    """Return the weight of an agent's own loss at each step, with mean 1 over the agent's turns in the batch.

    Args:
        credits: (N, T) w_t of each agent and step, from :func:`credit_weights`.
        on_turn: per agent (B, T) bool.
        share: part of the weight that follows the credit, in [0, 1]; the rest is the same at every turn, so that
            decisions that hardly move revenue are still learnt.

    Returns:
        (N, T).
    """
    turns = torch.stack([on.sum(0) for on in on_turn]).to(credits.dtype)  # N T
    return _with_mean_one(credits, turns, share, dim=1)


def team_loss_weights(credits: Tensor, on_turn: list[Tensor], filled: Tensor, share: float) -> Tensor:
    """Return the weight of the team's loss at each step of each episode, with mean 1 over the steps of the batch.

    The credit of a step is the mean credit of the agents that act in it; steps in which nobody acts get the mean.

    Args:
        credits: (N, T) w_t of each agent and step, from :func:`credit_weights`.
        on_turn: per agent (B, T) bool.
        filled: (B, T) bool.
        share: part of the weight that follows the credit; see :func:`agent_loss_weights`.

    Returns:
        (B, T).
    """
    acting = torch.stack(on_turn).to(credits.dtype)  # N B T
    count = acting.sum(0)
    credit = (acting * credits[:, None]).sum(0) / count.clamp(min=1)
    decided = (filled & (count > 0)).to(credits.dtype)
    weights = _with_mean_one(credit.flatten()[None], decided.flatten()[None], share, dim=1).view_as(credit)
    return torch.where(count > 0, weights, 1.0)


def _with_mean_one(credits: Tensor, counts: Tensor, share: float, dim: int) -> Tensor:
    """Return credits as weights whose mean, each counted ``counts`` times, is 1; all 1 where every credit is zero."""
    mean = (credits * counts).sum(dim, keepdim=True) / counts.sum(dim, keepdim=True).clamp(min=1)
    relative = credits / torch.where(mean > 0, mean, torch.ones_like(mean))
    return torch.where(mean > 0, 1 - share + share * relative, torch.ones_like(relative))
