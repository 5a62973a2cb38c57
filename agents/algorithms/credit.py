"""Variance-guided credit assignment (VGCA, Eq. 16): decisions that move revenue more get a stronger signal."""

from __future__ import annotations

import torch
from torch import Tensor

CREDITS = ("none", "variance", "cumulative")


def action_variance(returns: Tensor, actions: Tensor, on_turn: Tensor, n_actions: int) -> Tensor:
    """Return Var_{j ∈ A} E[R | a = j] over the actions that the batch contains.

    Args:
        returns: (B,) return of each episode.
        actions: (B,) action taken at one step.
        on_turn: (B,) bool, False where the agent did not act.
        n_actions: A, number of actions of the agent.

    Returns:
        Scalar; zero where fewer than two actions occur. Every action counts once, however often it was taken.
    """
    weight = on_turn.to(returns.dtype)
    count = returns.new_zeros(n_actions).index_add_(0, actions, weight)
    total = returns.new_zeros(n_actions).index_add_(0, actions, returns * weight)
    occurs = count > 0
    mean = total / count.clamp(min=1)
    n_occurring = occurs.sum().clamp(min=1)
    centre = (mean * occurs).sum() / n_occurring
    return (((mean - centre) ** 2) * occurs).sum() / n_occurring


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
    variances = torch.stack(
        [
            torch.stack([action_variance(returns, a[:, t], on[:, t], n) for t in range(a.shape[1])])
            for a, on, n in zip(actions, on_turn, n_actions, strict=True)
        ]
    )
    if form == "variance":
        return variances
    running = variances.cumsum(1)
    total = running[:, -1:]
    return torch.where(total > 0, running / total.clamp(min=torch.finfo(total.dtype).tiny), torch.ones_like(running))
