"""Q network of one agent: a recurrent (or feed-forward) trunk and an ensemble of K heads.

The heads are evaluated as one batched tensor product: twenty heads cost about as much per weight as one. Whole
episodes are unrolled only where an agent is on turn and its values are needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from agents.networks.fused_gru import gru_states
from agents.networks.fused_mlp import apply_dropout, needs_autograd, relu_ensemble
from agents.networks.own_mixing import OwnMixing
from agents.networks.unroll_plan import (
    CommonTurns,
    Mask,
    PackedTurns,
    UnrollPlan,
    at_steps,
    plan_unroll,
    steps_of,
)
from marca_env.utils.errors import InputError, unknown_option

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "elu": nn.functional.elu,
    "leaky_relu": nn.functional.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": nn.functional.gelu,
}
"""Activations of the Q networks' hidden layers."""
NORMALIZATIONS = ("none", "layer", "batch")
"""Normalisations of each head's hidden layers, between the affine map and the activation."""
INITIALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "glorot_uniform": nn.init.xavier_uniform_,
    "glorot_normal": nn.init.xavier_normal_,
    "he_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "he_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "lecun_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="linear"),
    "lecun_normal": partial(nn.init.kaiming_normal_, nonlinearity="linear"),
    "orthogonal": nn.init.orthogonal_,
    "random_uniform": partial(nn.init.uniform_, a=-0.05, b=0.05),
}
"""Initialisers of the weights (outputs, inputs) of every affine map and of the GRU; head biases start at zero."""
TORCH_DEFAULT = "torch"
"""Initialiser that leaves torch's own start: weights and biases uniform in ±1/√inputs (GRU: ±1/√H). It is smaller than
Glorot's, so that untrained values drown less of what is learnt."""
INITIALIZER_NAMES = (TORCH_DEFAULT, *INITIALIZERS)

EPSILON, MOMENTUM = 1e-5, 0.1
"""Constants of the normalisations, as in torch."""
CHUNK_FLOATS, MIN_ROWS = 5_000_000, 64
"""Rows pass through the heads in chunks whose widest layer has this many floats, so that it fits in the cache."""


class EnsembleLinear(nn.Module):
    """K independent affine maps, applied together."""

    def __init__(self, heads: int, inputs: int, outputs: int, initializer: str = "glorot_uniform") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(heads, 1, outputs))
        if initializer == TORCH_DEFAULT:
            for parameter in (self.weight, self.bias):
                nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)
            return
        for head in self.weight.data:
            INITIALIZERS[initializer](head.T)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the maps to ``x`` (K, B, inputs), which may be one input expanded over the heads → (K, B, outputs)."""
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleNorm(nn.Module):
    """Layer or batch normalisation of K heads, each with its own scale, shift and batch statistics."""

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
        """Normalise ``x`` (K, B, width); a batch of one row is normalised by the running statistics."""
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
        leaky_slope: float = 0.01,
        normalization: str = "none",
        initializer: str = "glorot_uniform",
    ) -> None:
        super().__init__()
        sizes = [inputs, *hidden, outputs]
        self.heads, self.dropout, self.activation = heads, dropout, activation
        slope = {"negative_slope": leaky_slope} if activation == "leaky_relu" else {}
        self._activate = partial(ACTIVATIONS[activation], **slope)
        self.layers = nn.ModuleList(EnsembleLinear(heads, a, b, initializer) for a, b in itertools.pairwise(sizes))
        normalised = hidden if normalization != "none" else ()
        self.norms = nn.ModuleList(EnsembleNorm(normalization, heads, width) for width in normalised)
        self._rows = max(MIN_ROWS, CHUNK_FLOATS // (heads * max(sizes[1:])))

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate all heads; ``x`` (B, inputs) → (B, K, outputs)."""
        if len(self.layers) == 1:
            return self._forward_linear(x)
        rate = self.dropout if self.training else 0.0
        if self.norms or self.activation != "relu" or needs_autograd():
            return self.forward_general(x, rate)
        parameters = [p for layer in self.layers for p in (layer.weight, layer.bias)]
        parts = [relu_ensemble(part, rate, parameters) for part in x.split(self._rows)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).transpose(0, 1)

    def _forward_linear(self, x: Tensor) -> Tensor:
        """Evaluate heads without hidden layers, which are one affine map with K·A outputs."""
        layer = self.layers[0]
        weight = layer.weight.transpose(1, 2).flatten(0, 1)  # K·A rows
        return nn.functional.linear(x, weight, layer.bias.flatten()).view(len(x), self.heads, -1)

    def forward_general(self, x: Tensor, rate: float) -> Tensor:
        """Evaluate all heads for any activation and normalisation; batch statistics cover all rows."""
        h = x.expand(self.heads, *x.shape)
        for k, layer in enumerate(self.layers[:-1]):
            h = layer(h)
            if self.norms:
                h = self.norms[k](h)
            h = apply_dropout(self._activate(h), rate)
        return self.layers[-1](h).transpose(0, 1)


class TrunkOutput(nn.Module):
    """Normalisation and dropout of the GRU's output, from which linear heads read."""

    def __init__(self, width: int, *, dropout: float, normalization: str) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = EnsembleNorm(normalization, 1, width) if normalization != "none" else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the heads' input; ``hidden`` (B, H) → (B, H)."""
        if self.norm is not None:
            hidden = self.norm(hidden[None])[0]
        return apply_dropout(hidden, self.dropout if self.training else 0.0)


class QNetwork(nn.Module):
    """Q network h_t = GRU(o_t, h_{t−1}), Q_k(o_t, ·) = MLP_k(h_t) (Eq. 7); without recurrence Q_k = MLP_k(o_t).

    The recurrent state changes only when the agent is on turn. A step at which it can only wait leaves the state as
    it was. An agent that acts once per episode is therefore unrolled once.

    Raises:
        InputError: an unknown activation, normalisation or initialiser; the message names the nearest valid one.
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
        leaky_slope: float = 0.01,
        normalization: str = "none",
        initializer: str = "glorot_uniform",
        own_mixing: bool = False,
    ) -> None:
        super().__init__()
        _check("activation", activation, ACTIVATIONS)
        _check("normalization", normalization, NORMALIZATIONS)
        _check("initializer", initializer, INITIALIZER_NAMES)
        self.n_actions, self.heads = n_actions, heads
        self.hidden_size = gru or 0
        self.cell = nn.GRUCell(observation_size, gru) if gru else None
        if self.cell is not None and initializer != TORCH_DEFAULT:
            INITIALIZERS[initializer](self.cell.weight_ih)
            INITIALIZERS[initializer](self.cell.weight_hh)
        self.trunk_output = None
        if gru and not hidden and (dropout or normalization != "none"):
            self.trunk_output = TrunkOutput(gru, dropout=dropout, normalization=normalization)
        self.head = EnsembleMLP(
            heads,
            gru or observation_size,
            hidden,
            n_actions,
            dropout=dropout,
            activation=activation,
            leaky_slope=leaky_slope,
            normalization=normalization,
            initializer=initializer,
        )
        self.own_mixing = OwnMixing(gru or observation_size) if own_mixing else None

    def initial_hidden(self, batch: int) -> Tensor:
        """Return zeros (B, hidden_size) on the device of the weights."""
        return next(self.parameters()).new_zeros(batch, self.hidden_size)

    def advance(self, observation: Tensor, hidden: Tensor) -> Tensor:
        """Return the recurrent state after ``observation`` (B, O); (B, hidden_size)."""
        return hidden if self.cell is None else self.cell(observation, hidden)

    def values(self, observation: Tensor, hidden: Tensor) -> Tensor:
        """Return Q of every head (B, K, A), given the state that :meth:`advance` returned."""
        return self._head_values(observation if self.cell is None else hidden)

    def _head_values(self, x: Tensor) -> Tensor:
        """Return Q (B, K, A) from the observation, or from the recurrent state."""
        values: Tensor = self.head(x if self.trunk_output is None else self.trunk_output(x))
        return values if self.own_mixing is None else self.own_mixing(values, x)

    def input_gates(self, observation: Tensor) -> Tensor:
        """Return the observation's part in the GRU's three gates; ``observation`` (B, O) → (B, 3H)."""
        assert self.cell is not None
        return nn.functional.linear(observation, self.cell.weight_ih, self.cell.bias_ih)

    def hidden_gates(self, hidden: Tensor) -> Tensor:
        """Return the recurrent state's part in the GRU's three gates; ``hidden`` (…, H) → (…, 3H)."""
        assert self.cell is not None
        return nn.functional.linear(hidden, self.cell.weight_hh, self.cell.bias_hh)

    def next_hidden(self, input_gates: Tensor, hidden_gates: Tensor, hidden: Tensor) -> Tensor:
        """Return the next recurrent state (B, H) from both parts of the gates, one of which may be a single row."""
        size = self.hidden_size
        reset, update = torch.sigmoid(input_gates[:, : 2 * size] + hidden_gates[:, : 2 * size]).chunk(2, 1)
        new = torch.tanh(input_gates[:, 2 * size :] + reset * hidden_gates[:, 2 * size :])
        return new + update * (hidden - new)

    def unroll(self, observations: Tensor, on_turn: Mask, needed: Mask | None = None) -> Tensor:
        """Return Q over whole episodes, computed only where it is needed.

        Args:
            observations: (B, T, O).
            on_turn: (B, T) bool; the recurrent state changes only there. On a GPU, pass masks as arrays on the host.
            needed: (B, T) bool, where values are needed; ``None``: wherever the agent is on turn.

        Returns:
            (B, T, K, A); zero where the agent is not on turn or the value is not needed.
        """
        return self.unroll_planned(observations, plan_unroll(on_turn, needed, device=observations.device))

    def unroll_planned(self, observations: Tensor, plan: UnrollPlan) -> Tensor:
        """Return the same as :meth:`unroll` for steps that :func:`plan_unroll` has chosen."""
        batch, steps, _ = observations.shape
        if isinstance(plan, CommonTurns):
            if not plan.needed:
                return observations.new_zeros(batch, steps, self.heads, self.n_actions)
            values = self._head_values(self._common_input(observations, plan)).to(observations.dtype)
            return at_steps(values, plan.needed, steps)
        q = observations.new_zeros(batch * steps, self.heads, self.n_actions)
        if len(plan.needed_positions):
            values = self._head_values(self._packed_input(observations.flatten(0, 1), plan)).to(q.dtype)
            q = q.index_copy(0, plan.needed_positions, values)
        return q.view(batch, steps, self.heads, self.n_actions)

    def _common_input(self, observations: Tensor, plan: CommonTurns) -> Tensor:
        """Return the heads' input at the steps needed, step after step (n·B, H), where all episodes have them."""
        if self.cell is None:
            return steps_of(observations, plan.needed)
        count = len(observations)
        states = self._states(steps_of(observations, plan.turns), (count,) * len(plan.turns))
        if plan.needed == plan.turns:
            return states
        parts = zip(states.split(count), plan.turns, strict=True)
        return torch.cat([part for part, step in parts if step in plan.needed])

    def _packed_input(self, observations: Tensor, plan: PackedTurns) -> Tensor:
        """Return the heads' input where it is needed (n, H); ``observations`` (B·T, O)."""
        if self.cell is None:
            return observations[plan.needed_positions]
        states = self._states(observations[plan.positions], plan.counts)
        return states if plan.needed is None else states[plan.needed]

    def _states(self, observations: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the recurrent states after each turn (Σ counts, H); ``observations`` (Σ counts, O) turn after turn."""
        assert self.cell is not None
        if not needs_autograd():
            cell = self.cell
            parameters = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
            return gru_states(observations, counts, parameters)
        hidden, states = observations.new_zeros(1, self.hidden_size), [observations.new_empty(0, self.hidden_size)]
        for gates in self.input_gates(observations).split(list(counts)):
            hidden = hidden[: len(gates)]  # all sequences start from one row, whose product is computed once
            hidden = self.next_hidden(gates, self.hidden_gates(hidden), hidden)
            states.append(hidden)
        return torch.cat(states)


def _check(option: str, name: str, valid: Iterable[str]) -> None:
    if name not in valid:
        raise InputError(unknown_option(option, name, valid))
