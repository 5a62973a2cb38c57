"""Mixers that know the joint action, and represent tasks that monotone mixers cannot.

A monotone mixer cannot represent a team value in which the worth of an agent's action depends on what the others do
(the 3×3 matrix game, a deadline that stages share). These mixers can, and the agents' own argmaxes are still the team's
(IGM, individual-global-max). Besides the agents' values they take the value of each agent's best legal action, and the
one-hot joint action. An agent that waits has no choice: its best value is its value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class DuplexMixer(nn.Module):
    """Duplex dueling mixer of QPLEX (Wang et al., 2021): Q_tot = Σ_n w_n(s)·V_n + b(s) + Σ_n λ_n(s, a)·w_n(s)·A_n.

    V_n is an agent's best value and A_n = Q_n − V_n ≤ 0 its advantage. As w_n > 0 and λ_n > 0, the agents' best actions
    are the team's best, and λ, which depends on the joint action, fits every task with that property. λ is the paper's
    attention: λ_n(s, a) = Σ_k υ_k(s)·φ_nk(s)·ψ_nk(s, a) with υ > 0 and sigmoids φ, ψ. As in the authors' code, no
    gradient flows through the advantages that λ multiplies: an agent learns from Σ_n w_n·Q_n, corrected by λ.

    Args:
        n_agents: N.
        state_size: S.
        action_size: length of the one-hot joint action.
        hypernet: hidden units of each network of the state.
        heads: heads of the attention.
    """

    def __init__(self, n_agents: int, state_size: int, action_size: int, *, hypernet: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.n_agents, self.heads = n_agents, heads
        self.weight = two_layers(state_size, hypernet, n_agents)
        self.bias = two_layers(state_size, hypernet, 1)
        self.head_scale = two_layers(state_size, hypernet, heads)
        self.agent_gate = two_layers(state_size, hypernet, heads * n_agents)
        self.action_gate = two_layers(state_size + action_size, hypernet, heads * n_agents)
        # Start as a plain sum: w = 1, and λ = heads · υ / 4 = 1 where both sigmoids are 1/2.
        for net, value in ((self.weight, 1.0), (self.head_scale, 4.0 / heads)):
            nn.init.constant_(net[-1].bias, math.log(math.expm1(value)))  # type: ignore[arg-type]

    def forward(
        self, utilities: Tensor, state: Tensor, best: Tensor, actions: Tensor, deciders: Tensor | None = None
    ) -> Tensor:
        """Return Q_tot.

        Args:
            utilities: (B, N) values of the actions taken.
            state: (B, S).
            best: (B, N) values of the best legal actions.
            actions: (B, ΣA) one-hot joint action.
            deciders: not used.

        Returns:
            (B,).
        """
        weight = nn.functional.softplus(self.weight(state))
        advantage = (weight * (utilities - best)).detach()
        importance = self.importance(state, actions)
        return (weight * utilities + advantage * (importance - 1)).sum(-1) + self.bias(state).squeeze(-1)

    def importance(self, state: Tensor, actions: Tensor) -> Tensor:
        """Return λ_n(s, a) > 0; ``state`` (B, S), ``actions`` (B, ΣA) → (B, N)."""
        shape = (-1, self.heads, self.n_agents)
        scale = nn.functional.softplus(self.head_scale(state))[..., None]
        agent_gate = torch.sigmoid(self.agent_gate(state)).view(shape)
        action_gate = torch.sigmoid(self.action_gate(torch.cat([state, actions], -1))).view(shape)
        return (scale * agent_gate * action_gate).sum(1)


class ResidualMixer(nn.Module):
    """Monotone mixer with a residual, after ResQ (Shen et al., 2022): Q_tot = Q_mono(Q_1 … Q_N, s) − |f(s, a)|.

    The residual is absent where every agent takes its best action, so that the agents' best actions stay the team's.
    Elsewhere it lowers Q_tot to what the joint action is worth.

    With ``shared_only`` it is also absent where a single agent decides. What such an action is worth, the agent's own
    value can represent as far as the agent can see it. A residual of the state would also absorb what it cannot see,
    and the agent would no longer learn its expectation over that.

    Args:
        monotone: the monotone mixer, ``(utilities (B, N), state (B, S)) -> (B,)``.
        state_size: S.
        action_size: length of the one-hot joint action.
        hypernet: hidden units of f.
        shared_only: whether only decisions that several agents take at once have a residual.
    """

    def __init__(
        self,
        monotone: nn.Module,
        state_size: int,
        action_size: int,
        *,
        hypernet: int = 64,
        shared_only: bool = False,
    ) -> None:
        super().__init__()
        self.monotone, self.shared_only = monotone, shared_only
        self.residual = two_layers(state_size + action_size, hypernet, 1)

    def forward(
        self, utilities: Tensor, state: Tensor, best: Tensor, actions: Tensor, deciders: Tensor | None = None
    ) -> Tensor:
        """Return Q_tot (B,).

        Args:
            utilities: (B, N); these and ``state``, ``best`` and ``actions`` as in :meth:`DuplexMixer.forward`.
            state: (B, S).
            best: (B, N).
            actions: (B, ΣA).
            deciders: (B,) int64, number of agents that decide; ``None``: all.
        """
        is_absent = (utilities >= best).all(-1)
        if self.shared_only and deciders is not None:
            is_absent = is_absent | (deciders < 2)
        residual = self.residual(torch.cat([state, actions], -1)).squeeze(-1).abs()
        return self.monotone(utilities, state) - torch.where(is_absent, torch.zeros_like(residual), residual)


def two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a network with one hidden layer of ReLU units, with torch's own start."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
