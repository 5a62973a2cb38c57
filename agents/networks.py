"""Q networks of one agent: a recurrent (or feed-forward) trunk and an ensemble of K heads.

The heads are one batched tensor product, so that twenty of them cost about as much per weight as one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class EnsembleLinear(nn.Module):
    """K independent affine maps, applied at once; Glorot-uniform weights, zero biases."""

    def __init__(self, heads: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(heads, 1, outputs))
        for head in self.weight.data:
            nn.init.xavier_uniform_(head)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (B, inputs), shared by the heads, or (K, B, inputs); returns (K, B, outputs)."""
        if x.dim() == 3:
            return torch.baddbmm(self.bias, x, self.weight)
        heads, inputs, outputs = self.weight.shape
        joined = x @ self.weight.transpose(0, 1).reshape(inputs, heads * outputs)  # B K*O
        return joined.view(len(x), heads, outputs).transpose(0, 1) + self.bias


class EnsembleMLP(nn.Module):
    """K multi-layer perceptrons of the same shape with ReLU between their layers."""

    def __init__(self, heads: int, inputs: int, hidden: Sequence[int], outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [inputs, *hidden, outputs]
        self.layers = nn.ModuleList(EnsembleLinear(heads, a, b) for a, b in itertools.pairwise(sizes))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (B, inputs) → (B, K, outputs)."""
        for layer in self.layers[:-1]:
            x = self.dropout(torch.relu(layer(x)))
        return self.layers[-1](x).transpose(0, 1)


class QNetwork(nn.Module):
    """h_t = GRU(o_t, h_{t−1}), Q_k(o_t, ·) = MLP_k(h_t) (Eq. 7); without recurrence Q_k = MLP_k(o_t).

    The recurrent state moves only when the agent is on turn: a step at which it can merely wait leaves it as
    it was, so that an agent which acts once is unrolled once.
    """

    def __init__(
        self,
        observation_size: int,
        n_actions: int,
        *,
        heads: int = 1,
        hidden: Sequence[int] = (64,),
        gru: int | None = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_actions, self.heads = n_actions, heads
        self.hidden_size = gru or 0
        self.cell = nn.GRUCell(observation_size, gru) if gru else None
        if self.cell is not None:
            nn.init.xavier_uniform_(self.cell.weight_ih)
            nn.init.xavier_uniform_(self.cell.weight_hh)
        self.head = EnsembleMLP(heads, gru or observation_size, hidden, n_actions, dropout=dropout)

    def initial_hidden(self, batch: int) -> Tensor:
        """Zeros, (B, hidden_size), where the weights are."""
        return next(self.parameters()).new_zeros(batch, self.hidden_size)

    def advance(self, observation: Tensor, hidden: Tensor) -> Tensor:
        """The recurrent state after ``observation`` (B, O); (B, hidden_size)."""
        return hidden if self.cell is None else self.cell(observation, hidden)

    def values(self, observation: Tensor, hidden: Tensor) -> Tensor:
        """Q of every head given the state that :meth:`advance` returned; (B, K, A)."""
        return self.head(observation if self.cell is None else hidden)

    def unroll(self, observations: Tensor, on_turn: Tensor) -> Tensor:
        """Q over whole episodes; zero where nobody of the batch is on turn.

        Args:
            observations: (B, T, O).
            on_turn: (B, T) bool; the recurrent state moves only there.

        Returns:
            (B, T, K, A).
        """
        batch, steps, _ = observations.shape
        busy = torch.nonzero(on_turn.any(0)).flatten()  # steps at which someone acts
        q = observations.new_zeros(batch, steps, self.heads, self.n_actions)
        if len(busy) == 0:
            return q
        seen = observations[:, busy]
        if self.cell is not None:
            seen = self._recur(seen, on_turn[:, busy])
        flat = self.head(seen.flatten(0, 1))
        return q.index_copy(1, busy, flat.view(batch, len(busy), self.heads, self.n_actions))

    def _recur(self, observations: Tensor, on_turn: Tensor) -> Tensor:
        hidden = self.initial_hidden(len(observations))
        lockstep = bool(on_turn.all())
        states = []
        for t in range(observations.shape[1]):
            moved = self.advance(observations[:, t], hidden)
            hidden = moved if lockstep else torch.where(on_turn[:, t, None], moved, hidden)
            states.append(hidden)
        return torch.stack(states, 1)  # B T H
