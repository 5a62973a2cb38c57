"""Network of the cost model: a deep & cross network (DCN) under a multi-gate mixture of experts (MMoE)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

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
        crossed = x
        for layer, bias in zip(self.cross, self.cross_bias, strict=True):
            crossed = x * layer(crossed) + bias + crossed
        joined = torch.cat([crossed, self.deep(x), self.wide(x)], dim=1)
        experts = torch.relu(self.experts(joined)).view(len(x), EXPERTS, EXPERT_WIDTH)
        tasks = []
        for gate, tower, columns in zip(self.gates, self.towers, self.gate_inputs, strict=True):
            weights = torch.softmax(gate(x[:, columns]), dim=1)  # B E
            mixed = sum(weights[:, e, None] * experts[:, e] for e in range(EXPERTS))
            tasks.append(tower(mixed))
        return torch.cat(tasks, dim=1)


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
