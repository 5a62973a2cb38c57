"""Matrix products whose result does not depend on the order of additions.

A library's product picks its kernel, and with it the order of additions, by the number of rows, the threads and the
processor. The last bits of a prediction then depend on the rest of its batch. Here both factors are rounded to
multiples of a power of two, coarse enough that every partial sum needs at most 53 bits. float64 holds each of these
sums exactly, so that a row's result is the same to the last bit alone and in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_EXACT = 53
"""Bits of an integer that float64 holds exactly."""
_MARGIN = 2
"""Spare bits: the shift that rounds is no power of two, so its unit may be half as large and its largest element ¾
larger."""


_ROWS = {"cpu": 512, "cuda": 65_536}
"""Rows of a forward pass. On a CPU its tensors stay in the cache, and the allocator reuses their memory; a GPU is busy
with many rows only."""


def chunks(n_rows: int, device: str) -> Iterator[slice]:
    """Yield the rows of each forward pass of a prediction on a torch device."""
    step = _ROWS["cpu" if torch.device(device).type == "cpu" else "cuda"]
    for start in range(0, n_rows, step):
        yield slice(start, start + step)


class DeterministicFactor:
    """The right-hand factor (…, I, O) of products, rounded once.

    Each column is rounded relative to its largest element, and so is each row of the left-hand factor: to 21 bits for
    up to 128 inputs. The result is about as near to the true product as a float32 sum.
    """

    def __init__(self, weight: Tensor) -> None:
        bits = (_EXACT - math.ceil(math.log2(max(2, weight.shape[-2])))) // 2 - _MARGIN
        self._shift = 1.5 * 2.0 ** (_EXACT - 1 - bits)
        self._columns = self._rounded(weight.detach(), -2)

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``x @ weight``: (…, B, I) → (…, B, O), with the dtype of ``x``."""
        return (self._rounded(x, -1) @ self._columns).to(x.dtype)

    def dot(self, x: Tensor) -> Tensor:
        """Return the product of each task's own row with its column: (B, T, I), weights (T, I, 1) → (B, T)."""
        return (self._rounded(x, -1) * self._columns[..., 0]).sum(-1).to(x.dtype)

    def _rounded(self, x: Tensor, dim: int) -> Tensor:
        """Round each row or column along ``dim`` to multiples of one power of two; float64."""
        shift = x.abs().amax(dim, keepdim=True).to(torch.float64) * self._shift  # adding so large a number rounds x
        return (x + shift).sub_(shift)


class JoinedFactor(DeterministicFactor):
    """Factors with the same left-hand factor, or some of its columns, joined to one: one product instead of several.

    Args:
        factors: the factors, each (I_k, O_k).
        columns: columns of the left-hand factor that each of them takes, I_k in number; ``None``: all.
    """

    def __init__(self, factors: Sequence[DeterministicFactor], columns: Sequence[list[int] | None]) -> None:
        widest = max(factors, key=lambda factor: len(factor._columns))
        self._shift = widest._shift  # the fewest bits: exact for the others, too
        parts = []
        for factor, rows in zip(factors, columns, strict=True):
            part = widest._columns.new_zeros(len(widest._columns), factor._columns.shape[1])
            part[slice(None) if rows is None else rows] = factor._columns
            parts.append(part)
        self._columns = torch.cat(parts, dim=1)


class DeterministicLinear(nn.Linear):
    """``nn.Linear`` that predicts with a :class:`DeterministicFactor` and trains with the library's faster product."""

    _factor: DeterministicFactor | None = None

    def train(self, mode: bool = True) -> DeterministicLinear:
        """Switch between training and prediction; weights must not change during prediction."""
        self._factor = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the factor out of pickles; it follows from the weights."""
        return {**self.__dict__, "_factor": None}

    @property
    def factor(self) -> DeterministicFactor:
        """The weights as a factor of predictions, (I, O)."""
        if self._factor is None:
            self._factor = DeterministicFactor(self.weight.t())
        return self._factor

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ weight.T + bias``: (B, I) → (B, O)."""
        return super().forward(x) if self.training else self.factor(x) + self.bias
