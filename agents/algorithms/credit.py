"""Variance-guided credit assignment (VGCA, Eq. 16): decisions that move revenue more learn from a stronger signal."""

from __future__ import annotations

import torch
from torch import Tensor

CREDITS = ("none", "variance", "cumulative")


def action_variance(returns: Tensor, actions: Tensor, on_turn: Tensor, n_actions: int) -> Tensor:
    """Var_{j ∈ A} E[R | a = j] over the actions that the batch contains.

    Args:
        returns: (B,) return of each episode.
        actions: (B,) action taken at the step in question.
        on_turn: (B,) bool, False where the agent did not act.

    Returns:
        Scalar; zero where fewer than two actions occur. Every action counts once, however often it was taken.
    """
    weight = on_turn.to(returns.dtype)
    count = returns.new_zeros(n_actions).index_add_(0, actions, weight)
    total = returns.new_zeros(n_actions).index_add_(0, actions, returns * weight)
    seen = count > 0
    mean = total / count.clamp(min=1)
    n_seen = seen.sum().clamp(min=1)
    centre = (mean * seen).sum() / n_seen
    return (((mean - centre) ** 2) * seen).sum() / n_seen


def credit_weights(
    returns: Tensor, actions: list[Tensor], on_turn: list[Tensor], n_actions: list[int], form: str = "variance"
) -> Tensor:
    """w_t of each agent and step, by which the episode's return is multiplied in that step's TD target.

    ``variance`` is the paper's weight, the variance itself. ``cumulative`` is what its reference code does:
    w_t = Σ_{u ≤ t} Var_u / Σ_u Var_u, which ends at 1; agents that act in the same step count in their order.

    Args:
        returns: (B,).
        actions: per agent (B, T).
        on_turn: per agent (B, T) bool.
        n_actions: per agent.

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
    running = variances.T.flatten().cumsum(0)  # step-major, agents in order within a step
    total = running[-1]
    share = torch.where(total > 0, running / total.clamp(min=torch.finfo(total.dtype).tiny), torch.ones_like(running))
    return share.view(variances.shape[1], variances.shape[0]).T
