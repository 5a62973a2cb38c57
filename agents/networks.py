"""Q networks of one agent: a recurrent (or feed-forward) trunk and an ensemble of K heads.

The heads are one batched tensor product, so that twenty of them cost about as much per weight as one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from marca_env.errors import InputError, unknown_option

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "elu": nn.functional.elu,
    "leaky_relu": nn.functional.leaky_relu,
    "tanh": torch.tanh,
    "gelu": nn.functional.gelu,
}
"""Activations of the Q networks' hidden layers."""
NORMALIZATIONS = ("none", "layer", "batch")
"""Of each head's hidden layers, between the affine map and the activation."""
INITIALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "glorot_uniform": nn.init.xavier_uniform_,
    "glorot_normal": nn.init.xavier_normal_,
    "he_uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
}
"""Of the weights (outputs, inputs) of every affine map and of the GRU; biases of the heads start at zero."""


class EnsembleLinear(nn.Module):
    """K independent affine maps, applied at once; zero biases."""

    def __init__(self, heads: int, inputs: int, outputs: int, initializer: str = "glorot_uniform") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(heads, 1, outputs))
        for head in self.weight.data:
            INITIALIZERS[initializer](head.T)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (B, inputs), shared by the heads, or (B, K, inputs); returns (B, K, outputs)."""
        if x.dim() == 3:
            return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1)
        heads, inputs, outputs = self.weight.shape
        joined = self.weight.transpose(0, 1).reshape(inputs, heads * outputs)
        return torch.addmm(self.bias.view(-1), x, joined).view(len(x), heads, outputs)


class EnsembleNorm(nn.Module):
    """Layer or batch normalisation of K heads at once, each with its own scale and shift (and batch statistics)."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, kind: str, heads: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(heads, width))
        self.bias = nn.Parameter(torch.zeros(heads, width))
        if kind == "batch":
            self.register_buffer("running_mean", torch.zeros(heads * width))
            self.register_buffer("running_var", torch.ones(heads * width))

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (B, K, width) → the same shape. A batch of one row is normalised by the running statistics."""
        if self.kind == "layer":
            return nn.functional.layer_norm(x, x.shape[-1:]) * self.weight + self.bias
        return nn.functional.batch_norm(
            x.flatten(1),
            self.running_mean,
            self.running_var,
            self.weight.flatten(),
            self.bias.flatten(),
            training=self.training and len(x) > 1,
        ).view_as(x)


class EnsembleMLP(nn.Module):
    """K multi-layer perceptrons of the same shape: affine → normalisation → activation → dropout, then affine."""

    def __init__(
        self,
        heads: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        dropout: float = 0.0,
        activation: str = "relu",
        normalization: str = "none",
        initializer: str = "glorot_uniform",
    ) -> None:
        super().__init__()
        sizes = [inputs, *hidden, outputs]
        self.layers = nn.ModuleList(EnsembleLinear(heads, a, b, initializer) for a, b in itertools.pairwise(sizes))
        normalised = hidden if normalization != "none" else ()
        self.norms = nn.ModuleList(EnsembleNorm(normalization, heads, width) for width in normalised)
        self.activate = ACTIVATIONS[activation]
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (B, inputs) → (B, K, outputs)."""
        for k, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            if self.norms:
                x = self.norms[k](x)
            x = self.dropout(self.activate(x))
        return self.layers[-1](x)


class QNetwork(nn.Module):
    """h_t = GRU(o_t, h_{t−1}), Q_k(o_t, ·) = MLP_k(h_t) (Eq. 7); without recurrence Q_k = MLP_k(o_t).

    The recurrent state moves only when the agent is on turn: a step at which it can merely wait leaves it as
    it was, so that an agent which acts once is unrolled once.

    Raises:
        InputError: an activation, normalisation or initialiser that there is not, naming the nearest valid one.
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
        activation: str = "relu",
        normalization: str = "none",
        initializer: str = "glorot_uniform",
    ) -> None:
        super().__init__()
        _check("activation", activation, ACTIVATIONS)
        _check("normalization", normalization, NORMALIZATIONS)
        _check("initializer", initializer, INITIALIZERS)
        self.n_actions, self.heads = n_actions, heads
        self.hidden_size = gru or 0
        self.cell = nn.GRUCell(observation_size, gru) if gru else None
        if self.cell is not None:
            INITIALIZERS[initializer](self.cell.weight_ih)
            INITIALIZERS[initializer](self.cell.weight_hh)
        self.head = EnsembleMLP(
            heads,
            gru or observation_size,
            hidden,
            n_actions,
            dropout=dropout,
            activation=activation,
            normalization=normalization,
            initializer=initializer,
        )

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


def _check(what: str, name: str, valid: Iterable[str]) -> None:
    if name not in valid:
        raise InputError(unknown_option(what, name, valid))
