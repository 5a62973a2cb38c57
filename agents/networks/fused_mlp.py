"""The hot path of training: ensembles of ReLU networks with dropout, forward and backward, in few passes over memory.

At the paper's size a layer's activations are hundreds of megabytes, so that every pass over them beside the matrix
products costs time. Here bias, ReLU and dropout work in place, dropout's scale 1/(1 − p) is a factor of the
next product, and its mask need not be kept: a unit that was dropped or below zero is zero, and its gradient with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

RESOLUTION = 1 << 16
"""On a CPU the dropout rate is rounded to a multiple of 1/RESOLUTION, for 16 random bits a unit."""

FEW = 16
"""With fewer outputs than this, a matrix product of rows is two to three times as fast with its weights transposed."""


def relu_ensemble(x: Tensor, rate: float, parameters: Sequence[Tensor]) -> Tensor:
    """K multi-layer perceptrons with ReLU, and dropout after every hidden layer.

    Args:
        x: (B, I), seen by every head.
        rate: of the units that are dropped, in [0, 1).
        parameters: weight (K, inputs, outputs) and bias (K, 1, outputs) of each layer in turn.

    Returns:
        (K, B, O).
    """
    if torch.is_grad_enabled():
        return _ReluEnsemble.apply(x, rate, *parameters)
    h = x.expand(len(parameters[0]), *x.shape)
    scale = 1.0
    for layer in range(0, len(parameters), 2):
        h = _affine(h, parameters[layer], parameters[layer + 1], scale)
        if layer + 2 < len(parameters):
            scale = drop_(h.relu_(), rate)
    return h


def _affine(x: Tensor, weight: Tensor, bias: Tensor, scale: float) -> Tensor:
    """scale · x W + b for every head; ``x`` (K, B, inputs) → (K, B, outputs)."""
    if weight.shape[2] < FEW:
        weight = weight.transpose(1, 2).contiguous().transpose(1, 2)
    return torch.baddbmm(bias, x, weight, alpha=scale)


class _ReluEnsemble(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float, *parameters: Tensor) -> Tensor:  # type: ignore[override]
        inputs = [x.expand(len(parameters[0]), *x.shape)]
        scales = [1.0]
        for layer in range(0, len(parameters) - 2, 2):
            h = _affine(inputs[-1], parameters[layer], parameters[layer + 1], scales[-1])
            scales.append(drop_(h.relu_(), rate))
            inputs.append(h)
        ctx.scales = scales
        ctx.save_for_backward(*inputs, *parameters[::2])
        return _affine(inputs[-1], parameters[-2], parameters[-1], scales[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        depth = len(ctx.scales)
        inputs, weights = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        grads: list[Tensor | None] = []
        for x, weight, scale in zip(reversed(inputs), reversed(weights), reversed(ctx.scales), strict=True):
            of_weight = torch.baddbmm(weight, x.transpose(1, 2), grad, beta=0, alpha=scale)
            grads += [grad.sum(1, keepdim=True), of_weight]
            if x is inputs[0]:
                break
            grad = torch.baddbmm(x, grad, weight.transpose(1, 2), beta=0, alpha=scale)
            torch.ops.aten.threshold_backward.grad_input(grad, x, 0, grad_input=grad)
        of_x = torch.bmm(grad, weights[0].transpose(1, 2)).sum(0) if ctx.needs_input_grad[0] else None
        return (of_x, None, *reversed(grads))


def dropped(x: Tensor, rate: float) -> Tensor:
    """Dropout: units are zero with probability ``rate``, the others multiplied by 1/(1 − rate)."""
    if rate <= 0:
        return x
    mask = torch.ones_like(x)
    return x * mask.mul_(drop_(mask, rate))


@torch.no_grad()
def drop_(x: Tensor, rate: float) -> float:
    """Set units to zero, each with probability ``rate`` and by itself, in place; returns what to multiply the rest by.

    On a CPU, torch's own Bernoulli takes longer than the layer that it thins out. Here a seed from torch's generator
    (so that its state still determines everything) starts a generator that fills 64 bits at a time, 16 for each unit.
    """
    if rate <= 0:
        return 1.0
    if x.device.type != "cpu":
        x.mul_(torch.empty_like(x).bernoulli_(1 - rate))
        return 1 / (1 - rate)
    threshold = min(round(rate * RESOLUTION), RESOLUTION - 1)
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.SFC64(seed).random_raw(-(-x.numel() // 4))
    bits = torch.from_numpy(words.view(np.int16))[: x.numel()]
    x.mul_(bits.ge_(threshold - RESOLUTION // 2).to(x.dtype).view(x.shape))
    return RESOLUTION / (RESOLUTION - threshold)
