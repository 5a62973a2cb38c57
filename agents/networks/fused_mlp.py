"""Ensembles of ReLU networks with dropout, forward and backward, in few passes over memory.

This is the hot path of training. At the paper's size the activations of a layer take hundreds of megabytes, and every
pass over them costs time. Bias, ReLU and dropout therefore work in place. The dropout scale 1/(1 − p) is a factor of
the next matrix product. The dropout mask is not stored: a unit that was dropped or negative is zero, and so is its
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DROPOUT_STEPS = 1 << 16
"""On a CPU the dropout rate is rounded to a multiple of 1/DROPOUT_STEPS, because each unit gets 16 random bits."""

FEW_OUTPUTS = 16
"""Below this number of outputs a matrix product is two to three times as fast with transposed weights."""


def relu_ensemble(x: Tensor, rate: float, parameters: Sequence[Tensor]) -> Tensor:
    """Evaluate K multi-layer perceptrons with ReLU and with dropout after every hidden layer.

    Args:
        x: (B, I), the input of every head.
        rate: share of the units that are dropped, in [0, 1).
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
            scale = apply_dropout_(h.relu_(), rate)
    return h


def _affine(x: Tensor, weight: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Return scale · x W + b for every head; ``x`` (K, B, inputs) → (K, B, outputs)."""
    if weight.shape[2] < FEW_OUTPUTS:
        weight = weight.transpose(1, 2).contiguous().transpose(1, 2)
    return torch.baddbmm(bias, x, weight, alpha=scale)


class _ReluEnsemble(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float, *parameters: Tensor) -> Tensor:  # type: ignore[override]
        inputs = [x.expand(len(parameters[0]), *x.shape)]
        scales = [1.0]
        for layer in range(0, len(parameters) - 2, 2):
            h = _affine(inputs[-1], parameters[layer], parameters[layer + 1], scales[-1])
            scales.append(apply_dropout_(h.relu_(), rate))
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
            weight_grad = torch.baddbmm(weight, x.transpose(1, 2), grad, beta=0, alpha=scale)
            grads += [grad.sum(1, keepdim=True), weight_grad]
            if x is inputs[0]:
                break
            grad = torch.baddbmm(x, grad, weight.transpose(1, 2), beta=0, alpha=scale)
            torch.ops.aten.threshold_backward.grad_input(grad, x, 0, grad_input=grad)
        input_grad = torch.bmm(grad, weights[0].transpose(1, 2)).sum(0) if ctx.needs_input_grad[0] else None
        return (input_grad, None, *reversed(grads))


def needs_autograd() -> bool:
    """Return whether plain operators are needed: ``torch.compile`` fuses them itself, autocast chooses their types."""
    return torch.compiler.is_compiling() or any(map(torch.is_autocast_enabled, ("cpu", "cuda")))


def apply_dropout(x: Tensor, rate: float) -> Tensor:
    """Return a copy in which units are zero with probability ``rate`` and the others multiplied by 1/(1 − rate)."""
    if rate <= 0:
        return x
    if needs_autograd():
        return torch.nn.functional.dropout(x, rate)
    mask = torch.ones_like(x)
    return x * mask.mul_(apply_dropout_(mask, rate))


@torch.no_grad()
def apply_dropout_(x: Tensor, rate: float) -> float:
    """Set units to zero in place, independently with probability ``rate``, and return the scale of the others.

    On a CPU, torch's Bernoulli sampling takes longer than the layer itself. Here a seed drawn from torch's generator
    starts a faster generator that fills 64 bits at a time, 16 for each unit. The state of torch's generator therefore
    still determines the result.
    """
    if rate <= 0:
        return 1.0
    if x.device.type != "cpu":
        x.mul_(torch.empty_like(x).bernoulli_(1 - rate))
        return 1 / (1 - rate)
    threshold = min(round(rate * DROPOUT_STEPS), DROPOUT_STEPS - 1)
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.SFC64(seed).random_raw(-(-x.numel() // 4))
    bits = torch.from_numpy(words.view(np.int16))[: x.numel()]
    x.mul_(bits.ge_(threshold - DROPOUT_STEPS // 2).to(x.dtype).view(x.shape))
    return DROPOUT_STEPS / (DROPOUT_STEPS - threshold)
