"""Unrolling of a GRU over packed turns, forward and backward, in few passes over memory.

Autograd through single steps writes every gate several times and adds up one gradient of the weights for each step.
Here the gates are computed in place, and each weight's gradient is one product over all turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def gru_states(x: Tensor, counts: Sequence[int], parameters: Sequence[Tensor]) -> Tensor:
    """Return the recurrent states of packed sequences that start from zero.

    Args:
        x: (Σ counts, O), inputs turn after turn; the sequences that have an l-th turn are the first ``counts[l]``.
        counts: number of sequences at each turn, not increasing.
        parameters: of a ``torch.nn.GRUCell``: weights (3H, O) and (3H, H), biases (3H,) and (3H,), in the order reset,
            update, new.

    Returns:
        (Σ counts, H), turn after turn.
    """
    states: Tensor = _GRUStates.apply(x, tuple(counts), *parameters)
    return states


class _GRUStates(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, counts: tuple[int, ...], w_in: Tensor, w_hidden: Tensor, b_in: Tensor, b_hidden: Tensor
    ) -> Tensor:
        size = w_hidden.shape[1]
        gates = torch.addmm(b_in, x, w_in.t())  # becomes reset, update and new of each row
        states = x.new_empty(len(x), size)
        hidden_new = x.new_empty(len(x), size)  # the recurrent part of "new", before the reset gate
        previous = x.new_zeros(counts[0] if counts else 0, size)
        for turn, rows in enumerate(_groups(counts)):
            # All sequences start from the zero state, whose product with the weights is the bias.
            hidden = torch.addmm(b_hidden, previous[: counts[turn]], w_hidden.t()) if turn else b_hidden[None]
            switches, new = gates[rows, : 2 * size], gates[rows, 2 * size :]
            switches.add_(hidden[:, : 2 * size]).sigmoid_()
            hidden_new[rows] = hidden[:, 2 * size :]
            new.addcmul_(switches[:, :size], hidden_new[rows]).tanh_()
            previous = torch.lerp(new, previous[: counts[turn]], switches[:, size:], out=states[rows])
        ctx.counts = counts
        ctx.save_for_backward(x, w_in, w_hidden, gates, hidden_new, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, w_in, w_hidden, gates, hidden_new, states = ctx.saved_tensors
        size, groups = w_hidden.shape[1], _groups(ctx.counts)
        hidden_grad = torch.empty_like(gates)  # of the recurrent part of the gates
        new_grad = torch.empty_like(states)  # of the whole of "new"
        carried = None
        for turn in reversed(range(len(groups))):
            rows, count = groups[turn], ctx.counts[turn]
            reset, update, new = gates[rows].split(size, 1)
            state_grad = grad[rows] if carried is None else _add_first(grad[rows], carried)
            before = states[groups[turn - 1]][:count] if turn else None
            kept = state_grad * update
            gate = hidden_grad[rows]
            grad_new = torch.ops.aten.tanh_backward.grad_input(state_grad - kept, new, grad_input=new_grad[rows])
            torch.mul(grad_new, reset, out=gate[:, 2 * size :])
            change = -new if before is None else before - new
            _sigmoid_backward(change.mul_(state_grad), update, gate[:, size : 2 * size])
            _sigmoid_backward(grad_new * hidden_new[rows], reset, gate[:, :size])
            if before is not None:
                carried = torch.addmm(kept, gate, w_hidden)
        weight_grad = _recurrent_grad(hidden_grad, states, ctx.counts)
        bias_grad = hidden_grad.sum(0)
        hidden_grad[:, 2 * size :] = new_grad  # the gates of the input lack the reset gate
        input_grad = hidden_grad @ w_in if ctx.needs_input_grad[0] else None
        return input_grad, None, hidden_grad.t() @ x, weight_grad, hidden_grad.sum(0), bias_grad


def _recurrent_grad(hidden_grad: Tensor, states: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the gradient of the recurrent weights, in one product over all turns but the first."""
    if len(counts) < 2:
        return hidden_grad.new_zeros(hidden_grad.shape[1], states.shape[1])
    if counts[0] == counts[-1]:
        before = states[: -counts[-1]]
    else:
        before = torch.cat([states[rows][:n] for rows, n in zip(_groups(counts), counts[1:], strict=False)])
    return hidden_grad[counts[0] :].t() @ before


def _groups(counts: Sequence[int]) -> list[slice]:
    """Return the rows of each turn."""
    return [slice(a, b) for a, b in itertools.pairwise(itertools.accumulate(counts, initial=0))]


def _add_first(values: Tensor, first: Tensor) -> Tensor:
    """Return ``values`` plus ``first`` in its first rows, those of sequences that go on."""
    if len(first) == len(values):
        return values + first
    total = values.clone()
    total[: len(first)] += first
    return total


def _sigmoid_backward(grad: Tensor, output: Tensor, out: Tensor) -> None:
    torch.ops.aten.sigmoid_backward.grad_input(grad, output, grad_input=out)
