"""Q networks of one agent: a recurrent (or feed-forward) trunk and an ensemble of K heads.

The heads are one batched tensor product, so that twenty of them cost about as much per weight as one. Whole episodes
are unrolled only where an agent is on turn and its values are wanted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agents.networks.fused_mlp import dropped, relu_ensemble
from marca_env.utils.errors import InputError, unknown_option

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


EPSILON, MOMENTUM = 1e-5, 0.1
"""Of the normalisations, as in torch."""
CHUNK_FLOATS, MIN_ROWS = 5_000_000, 64
"""Rows are passed through the heads in parts whose widest layer has so many floats: it stays near the cache."""


class EnsembleLinear(nn.Module):
    """K independent affine maps, applied at once; zero biases."""

    def __init__(self, heads: int, inputs: int, outputs: int, initializer: str = "glorot_uniform") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(heads, 1, outputs))
        for head in self.weight.data:
            INITIALIZERS[initializer](head.T)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (K, B, inputs), possibly one input expanded over the heads → (K, B, outputs)."""
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleNorm(nn.Module):
    """Layer or batch normalisation of K heads at once, each with its own scale and shift (and batch statistics)."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, kind: str, heads: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(heads, 1, width))
        self.bias = nn.Parameter(torch.zeros(heads, 1, width))
        if kind == "batch":
            self.register_buffer("running_mean", torch.zeros(heads, 1, width))
            self.register_buffer("running_var", torch.ones(heads, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (K, B, width) → the same shape. A batch of one row is normalised by the running statistics."""
        if self.kind == "layer":
            return nn.functional.layer_norm(x, x.shape[-1:]) * self.weight + self.bias
        mean, variance = self.running_mean, self.running_var
        if self.training and (rows := x.shape[1]) > 1:
            variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
            with torch.no_grad():
                self.running_mean.lerp_(mean, MOMENTUM)
                self.running_var.lerp_(variance * (rows / (rows - 1)), MOMENTUM)
        return (x - mean) * (self.weight * torch.rsqrt(variance + EPSILON)) + self.bias


class EnsembleMLP(nn.Module):
    """K multi-layer perceptrons of the same shape: affine → normalisation → activation → dropout, then affine."""

    layers: Any

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
        self.heads, self.dropout, self.activation = heads, dropout, activation
        self.layers = nn.ModuleList(EnsembleLinear(heads, a, b, initializer) for a, b in itertools.pairwise(sizes))
        normalised = hidden if normalization != "none" else ()
        self.norms = nn.ModuleList(EnsembleNorm(normalization, heads, width) for width in normalised)
        self._rows = max(MIN_ROWS, CHUNK_FLOATS // (heads * max(sizes[1:])))

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (B, inputs) → (B, K, outputs)."""
        rate = self.dropout if self.training else 0.0
        if self.norms or self.activation != "relu":
            return self.general(x, rate)
        parameters = [p for layer in self.layers for p in (layer.weight, layer.bias)]
        parts = [relu_ensemble(part, rate, parameters) for part in x.split(self._rows)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).transpose(0, 1)

    def general(self, x: Tensor, rate: float) -> Tensor:
        """As :meth:`forward`, for any activation and normalisation; batch statistics are those of all rows."""
        h = x.expand(self.heads, *x.shape)
        for k, layer in enumerate(self.layers[:-1]):
            h = layer(h)
            if self.norms:
                h = self.norms[k](h)
            h = dropped(ACTIVATIONS[self.activation](h), rate)
        return self.layers[-1](h).transpose(0, 1)


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

    def seen(self, observation: Tensor) -> Tensor:
        """The observation's part in the GRU's three gates; ``observation`` (B, O) → (B, 3H)."""
        assert self.cell is not None
        return nn.functional.linear(observation, self.cell.weight_ih, self.cell.bias_ih)

    def carried(self, hidden: Tensor) -> Tensor:
        """The recurrent state's part in the GRU's three gates; ``hidden`` (…, H) → (…, 3H)."""
        assert self.cell is not None
        return nn.functional.linear(hidden, self.cell.weight_hh, self.cell.bias_hh)

    def moved(self, seen: Tensor, carried: Tensor, hidden: Tensor) -> Tensor:
        """The next recurrent state (B, H), from both parts of the gates (one of them may be a single row)."""
        size = self.hidden_size
        reset, update = torch.sigmoid(seen[:, : 2 * size] + carried[:, : 2 * size]).chunk(2, 1)
        new = torch.tanh(seen[:, 2 * size :] + reset * carried[:, 2 * size :])
        return new + update * (hidden - new)

    def unroll(self, observations: Tensor, on_turn: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Q over whole episodes, computed where it is wanted only.

        Args:
            observations: (B, T, O).
            on_turn: (B, T) bool; the recurrent state moves only there.
            wanted: (B, T) bool, where values are needed; ``None``: wherever the agent is on turn.

        Returns:
            (B, T, K, A); zero where the agent is not on turn or the value is not wanted.
        """
        batch, steps, _ = observations.shape
        wanted = on_turn if wanted is None else wanted & on_turn
        if self.cell is None:
            where = torch.nonzero(wanted.flatten()).squeeze(1)
            seen = observations.flatten(0, 1)[where]
        else:
            seen, where = self._recur(observations, on_turn, wanted)
        q = observations.new_zeros(batch * steps, self.heads, self.n_actions)
        if len(where):
            q = q.index_copy(0, where, self.head(seen))
        return q.view(batch, steps, self.heads, self.n_actions)

    def _recur(self, observations: Tensor, on_turn: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Recurrent states where they are wanted (n, H), and their places in the flattened (B·T) (n,).

        An agent's turns are packed: its l-th turn of all episodes together, whatever the step at which it falls, and
        the longest first, so that those still to be unrolled are the first rows.
        """
        assert self.cell is not None
        steps = on_turn.shape[1]
        turn = on_turn.cumsum(1)  # 1, 2, … at the agent's turns
        needed = (turn * wanted).amax(1)  # turns to unroll, per episode
        order = torch.argsort(needed, descending=True, stable=True)
        turns = int(needed.max()) if len(needed) else 0
        active = on_turn & (turn <= needed[:, None])
        at = torch.zeros(len(needed), turns + 1, dtype=torch.long, device=on_turn.device)
        row, step = torch.nonzero(active, as_tuple=True)
        at[row, turn[row, step]] = row * steps + step
        counts = (needed[:, None] > torch.arange(turns, device=needed.device)).sum(0).tolist()
        places = [at[order[:n], k + 1] for k, n in enumerate(counts)]
        where = torch.cat([*places, at.new_empty(0)])
        states = self._states(observations.flatten(0, 1)[where], counts)
        if len(where) == 0:
            return states, where
        kept = wanted.flatten()[where]
        return (states, where) if kept.all() else (states[kept], where[kept])

    def _states(self, observations: Tensor, counts: list[int]) -> Tensor:
        """GRU states of packed sequences; ``observations`` (Σ counts, O), the turns one after the other."""
        hidden, states = self.initial_hidden(1), [observations.new_empty(0, self.hidden_size)]
        for seen in self.seen(observations).split(counts):
            hidden = hidden[: len(seen)]  # before the first turn all share one state, and its product is that of a row
            hidden = self.moved(seen, self.carried(hidden), hidden)
            states.append(hidden)
        return torch.cat(states)


def _check(what: str, name: str, valid: Iterable[str]) -> None:
    if name not in valid:
        raise InputError(unknown_option(what, name, valid))
