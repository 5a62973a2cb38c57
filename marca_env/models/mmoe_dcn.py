"""Network of the cost model: a deep & cross network (DCN) under a multi-gate mixture of experts (MMoE)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from marca_env.models.deterministic_linear import DeterministicFactor, DeterministicLinear, JoinedFactor

CROSS_LAYERS, DEEP, WIDE, EXPERTS, EXPERT_WIDTH = 3, (64, 32), 16, 4, 32


class MMoEDCN(nn.Module):
    """Deep & cross network → experts → one gated task per stage and per signal.

    The gate of a task sees only the decisions of its own and of earlier stages. Predictions compute the same as
    training, with fewer and larger products, each of which is a :class:`DeterministicFactor`'s.

    Args:
        inputs: width of the encoded input.
        gate_inputs: input columns of each task's gate.
    """

    _fused: _FusedLayers | None = None
    cross: Any
    deep: Any
    wide: Any
    gates: Any
    towers: Any
    gate_positions: Tensor
    """Place of every weight of the gates in a matrix (E·T, inputs), flattened."""

    def __init__(self, inputs: int, gate_inputs: list[list[int]]) -> None:
        super().__init__()
        self.gate_inputs = gate_inputs
        self.cross = nn.ModuleList(DeterministicLinear(inputs, 1) for _ in range(CROSS_LAYERS))
        self.cross_bias = nn.Parameter(torch.zeros(CROSS_LAYERS, inputs))
        self.deep = nn.Sequential(
            DeterministicLinear(inputs, DEEP[0]), nn.ReLU(), DeterministicLinear(DEEP[0], DEEP[1]), nn.ReLU()
        )
        self.wide = DeterministicLinear(inputs, WIDE)
        joined = inputs + DEEP[1] + WIDE
        self.experts = DeterministicLinear(joined, EXPERTS * EXPERT_WIDTH)
        self.gates = nn.ModuleList(DeterministicLinear(len(columns), EXPERTS) for columns in gate_inputs)
        self.towers = nn.ModuleList(DeterministicLinear(EXPERT_WIDTH, 1) for _ in gate_inputs)
        experts = torch.arange(EXPERTS)[:, None] * len(gate_inputs)
        places = [((experts + k) * inputs + torch.tensor(columns)).flatten() for k, columns in enumerate(gate_inputs)]
        self.register_buffer("gate_positions", torch.cat(places), persistent=False)

    def train(self, mode: bool = True) -> MMoEDCN:
        """Switch between training and prediction; weights must not change during prediction."""
        self._fused = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the fused layers out of pickles; they follow from the weights."""
        return {**self.__dict__, "_fused": None}

    def forward(self, x: Tensor) -> Tensor:
        """Return every result on its scale: (B, inputs) → (B, R)."""
        if self.training:
            return self._train_forward(x)
        if self._fused is None:
            self._fused = _FusedLayers(self)
        return self._fused(x)

    def _train_forward(self, x: Tensor) -> Tensor:
        """Return every result on its scale, in few operations that can be differentiated: (B, inputs) → (B, T).

        A cross layer adds a multiple of the input and a constant vector, so that its output is αx + β, with a number α
        for each row and one vector β. All layers above the input are therefore products with x itself.
        """
        inputs, deep_layer = x.shape[1], self.deep[0]
        of_crossed, of_rest = self.experts.weight.split([inputs, DEEP[1] + WIDE], dim=1)
        of_cross = torch.cat([layer.weight for layer in self.cross])
        gates = self._gate_weights(inputs)
        weights = torch.cat([deep_layer.weight, self.wide.weight, gates, of_crossed, of_cross])
        biases = [deep_layer.bias, self.wide.bias, torch.stack([gate.bias for gate in self.gates], 1).flatten()]
        widths = [DEEP[0], WIDE, len(gates), EXPERTS * EXPERT_WIDTH, CROSS_LAYERS]
        bias = torch.cat([*biases, x.new_zeros(sum(widths[3:]))])
        deep, wide, gates, crossed, scales = linear(x, weights, bias).split(widths, dim=1)
        betas = self.cross_bias.cumsum(0)  # the first layer gets the input itself: α = 1, β = 0
        constants = torch.cat([layer.bias for layer in self.cross])
        constants = constants + (of_cross * (betas - self.cross_bias)).sum(1)
        factors = (scales + 1.0).unbind(1)
        alpha = factors[0] + constants[0]
        for k in range(1, CROSS_LAYERS):
            alpha = torch.addcmul(constants[k], alpha, factors[k])
        rest = linear(
            torch.cat([self.deep[1:](deep), wide], dim=1), of_rest, of_crossed @ betas[-1] + self.experts.bias
        )
        experts = torch.relu(torch.addcmul(rest, alpha[:, None], crossed))
        towers = torch.cat([tower.weight for tower in self.towers])  # T X
        by_expert = linear(experts.view(-1, EXPERT_WIDTH), towers).view(len(x), EXPERTS, -1)  # B E T
        shares = torch.softmax(gates.reshape(len(x), EXPERTS, -1), dim=1)
        return (shares * by_expert).sum(1) + torch.cat([tower.bias for tower in self.towers])

    def _gate_weights(self, inputs: int) -> Tensor:
        """Return the weights of all gates as rows over all inputs, 0 where a gate sees nothing: (E·T, inputs)."""
        seen = torch.cat([gate.weight.flatten() for gate in self.gates])
        return (
            seen.new_zeros(len(self.gates) * EXPERTS * inputs).index_copy(0, self.gate_positions, seen).view(-1, inputs)
        )


class _FusedLayers:
    """The layers of a network in prediction mode; all that take the input itself are one product. T tasks."""

    def __init__(self, net: MMoEDCN) -> None:
        layers: list[Any] = [net.deep[0], net.wide, net.cross[0], *net.gates]
        self._first = JoinedFactor([layer.factor for layer in layers], [None, None, None, *net.gate_inputs])
        self._first_bias = torch.cat([layer.bias.detach() for layer in layers])
        self._net, self._widths = net, [DEEP[0], WIDE, 1, EXPERTS * len(net.gates)]
        towers: list[Any] = list(net.towers)
        self._towers = DeterministicFactor(torch.stack([tower.weight.detach().t() for tower in towers]))  # T X 1
        self._tower_bias = torch.cat([tower.bias.detach() for tower in towers])

    def __call__(self, x: Tensor) -> Tensor:
        """Return every result on its scale: (B, inputs) → (B, T)."""
        net = self._net
        deep, wide, scale, gates = (self._first(x) + self._first_bias).split(self._widths, dim=1)
        crossed = x
        for k, bias in enumerate(net.cross_bias):
            crossed = x * (scale if k == 0 else net.cross[k](crossed)) + bias + crossed
        joined = torch.cat([crossed, net.deep[1:](deep), wide], dim=1)
        experts = torch.relu(net.experts(joined)).view(len(x), 1, EXPERTS, EXPERT_WIDTH)
        weights = torch.softmax(gates.reshape(len(x), -1, EXPERTS), dim=2)[..., None]  # B T E 1
        mixed = weights[:, :, 0] * experts[:, :, 0]  # B T X, added in one order for every B
        for e in range(1, EXPERTS):
            mixed += weights[:, :, e] * experts[:, :, e]
        return self._towers.dot(mixed) + self._tower_bias
