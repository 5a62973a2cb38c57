"""Which steps of a batch of episodes a Q network evaluates; the plan is made on the host, before any tensor work.

In most environments an agent is on turn at the same steps of every episode. Such a batch needs no index: the network
takes slices of steps. Otherwise the turns of all episodes are packed, with indices computed here by NumPy. Either way
the network itself never waits for a value of a tensor, which on a GPU would stop the stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Mask = Tensor | np.ndarray
"""(B, T) bool, on the host where a GPU must not be waited for."""


@dataclass(frozen=True)
class CommonTurns:
    """Turns that fall at the same steps of every episode."""

    turns: tuple[int, ...]
    """Steps to unroll, up to the last whose value is needed."""
    needed: tuple[int, ...]
    """Steps whose values are needed, some of ``turns``."""


@dataclass(frozen=True)
class PackedTurns:
    """Turns that differ between episodes: the l-th turns of all episodes form one group, whatever their steps.

    Episodes with most turns come first, so that the episodes still to be unrolled are the first rows.
    """

    counts: tuple[int, ...]
    """Rows of each group."""
    positions: Tensor
    """(Σ counts,) int64, positions of the rows in the flattened (B·T) steps, group after group."""
    needed: Tensor | None
    """(n,) int64, rows whose values are needed; ``None``: all."""
    needed_positions: Tensor
    """(n,) int64, positions of these rows in the flattened steps."""


UnrollPlan = CommonTurns | PackedTurns


def on_host(mask: Mask) -> np.ndarray:
    """Return a mask as an array; a tensor on a GPU is copied, and the stream waited for."""
    return mask if isinstance(mask, np.ndarray) else mask.detach().cpu().numpy()


def plan_unroll(on_turn: Mask, needed: Mask | None = None, *, device: torch.device | str = "cpu") -> UnrollPlan:
    """Plan which steps are unrolled, and in which order.

    Args:
        on_turn: (B, T) bool, where the agent is on turn.
        needed: (B, T) bool, where values are needed; ``None``: wherever the agent is on turn.
        device: device of the indices.
    """
    turns = on_host(on_turn)
    wanted = turns if needed is None else on_host(needed) & turns
    return _common_turns(turns, wanted) or _packed_turns(turns, wanted, device)


def _common_turns(on_turn: np.ndarray, needed: np.ndarray) -> CommonTurns | None:
    """Return the plan of a batch whose episodes all have the same turns; ``None`` if they differ."""
    if not len(on_turn) or (on_turn != on_turn[:1]).any() or (needed != needed[:1]).any():
        return None
    steps = tuple(np.flatnonzero(needed[0]).tolist())
    last = steps[-1] if steps else -1
    return CommonTurns(tuple(np.flatnonzero(on_turn[0, : last + 1]).tolist()), steps)


def _packed_turns(on_turn: np.ndarray, needed: np.ndarray, device: torch.device | str) -> PackedTurns:
    steps = on_turn.shape[1]
    turn = on_turn.cumsum(1)  # 1, 2, … at the agent's turns
    turns_needed = (turn * needed).max(1, initial=0)  # turns to unroll, per episode
    order = np.argsort(-turns_needed, kind="stable")
    turns = int(turns_needed.max(initial=0))
    row, step = np.nonzero(on_turn & (turn <= turns_needed[:, None]))
    step_of_turn = np.zeros((len(on_turn), turns), np.int64)
    step_of_turn[row, turn[row, step] - 1] = row * steps + step
    counts = (turns_needed[:, None] > np.arange(turns)).sum(0).tolist()
    groups = [step_of_turn[order[:n], k] for k, n in enumerate(counts)]
    positions = np.concatenate([*groups, np.empty(0, np.int64)])
    is_needed = needed.ravel()[positions]
    rows = None if is_needed.all() else without_waiting(np.flatnonzero(is_needed), device)
    index = without_waiting(positions, device)
    return PackedTurns(tuple(counts), index, rows, without_waiting(positions[is_needed], device))


def without_waiting(values: np.ndarray, device: torch.device | str) -> Tensor:
    """Return an array as a tensor on a device; the copy to a GPU is queued, and the stream not waited for."""
    tensor = torch.from_numpy(values)
    return (
        tensor.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else tensor.to(device)
    )


def steps_of(values: Tensor, steps: tuple[int, ...]) -> Tensor:
    """Return the values at some steps, step after step; (B, T, …) → (len(steps)·B, …).

    The steps are slices, not an index: an index made of numbers is copied to the device, which a CUDA graph refuses.
    """
    if not steps:
        return values[:, :0].flatten(0, 1)
    return torch.cat([values[:, step] for step in steps])


def at_steps(values: Tensor, steps: tuple[int, ...], total: int) -> Tensor:
    """Put values of some steps in their places, zeros elsewhere; (len(steps)·B, …) → (B, total, …).

    The opposite of :func:`steps_of`, for at least one step.
    """
    parts = dict(zip(steps, values.chunk(len(steps)), strict=True))
    nothing = torch.zeros_like(parts[steps[0]])
    return torch.stack([parts.get(step, nothing) for step in range(total)], 1)
