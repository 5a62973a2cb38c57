"""Matrix products without rounding between their terms, so that the order of additions does not matter.

A library's product picks its kernel, and with it the order of additions, by the number of rows, the threads and the
processor; the last bits of a prediction then depend on what else was predicted with it. Here both factors are rounded
to multiples of a power of two, so few of them that every partial sum is one of at most 2^53: float64 holds all of them
exactly, and a row's result is the same to the last bit alone and in any batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_EXACT = 53
"""Bits of a whole number that float64 holds."""
_MARGIN = 2
"""What is added to round is not itself a power of two: the unit may be half as large, the largest element ¾ above."""


class Factor:
    """The right-hand side of products, (…, I, O); rounded once.

    Each column is rounded relative to its largest element, and so is each row that it is multiplied with: to 21 bits
    for up to 128 inputs, about as near to the true product as float32's own sums.
    """

    def __init__(self, weight: Tensor) -> None:
        bits = (_EXACT - math.ceil(math.log2(max(2, weight.shape[-2])))) // 2 - _MARGIN
        self._shift = 1.5 * 2.0 ** (_EXACT - 1 - bits)
        self._columns = self._rounded(weight.detach(), -2)

    def __call__(self, x: Tensor) -> Tensor:
        """``x @ weight``: (…, B, I) → (…, B, O), of the type of ``x``."""
        return (self._rounded(x, -1) @ self._columns).to(x.dtype)

    def _rounded(self, x: Tensor, dim: int) -> Tensor:
        """Multiples of one power of two for each row or column along ``dim``; float64."""
        shift = x.abs().amax(dim, keepdim=True).to(torch.float64) * self._shift  # so large that adding it rounds
        return (x + shift).sub_(shift)


class ExactLinear(nn.Linear):
    """``nn.Linear`` that predicts with a :class:`Factor`; it learns with the library's product, which is faster."""

    _factor: Factor | None = None

    def train(self, mode: bool = True) -> ExactLinear:
        """Learn or predict; weights must not change while it predicts."""
        self._factor = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I) → (B, O)."""
        if self.training:
            return super().forward(x)
        if self._factor is None:
            self._factor = Factor(self.weight.t())
        return self._factor(x) + self.bias
