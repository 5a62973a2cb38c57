"""Replay on a GPU: a ring buffer whose large columns stay on the device of sampling and learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agents.rllib.core.replay import EpisodeBuffer
from marca_env.utils.errors import InputError

ON_HOST = ("reward", "terminated", "filled", "turn")
"""Kinds of columns that stay on the host: losses are planned from them, and statistics are taken."""


def is_on_host(name: str) -> bool:
    """Return whether a column of a :class:`TensorBuffer` is an array on the host."""
    return name.partition(":")[0] in ON_HOST


class TensorBuffer(EpisodeBuffer):
    """Ring buffer of the latest episodes on a device; it draws the episodes that :class:`EpisodeBuffer` would draw.

    Observations, states, masks and actions are tensors; the columns of :data:`ON_HOST`, a few bytes for each episode,
    are arrays. A checkpoint holds the same as that of the other buffer, and each reads the other's.

    Args:
        capacity: maximum number of episodes.
        seed: seed of the draws.
        device: torch device.
    """

    columns: dict[str, Any]

    def __init__(self, capacity: int, seed: int | None = None, device: str | torch.device = "cuda") -> None:
        super().__init__(capacity, seed)
        self.device = torch.device(device)

    def add(self, columns: dict[str, Any]) -> None:
        """Append episodes; they replace the oldest ones if the buffer is full.

        Args:
            columns: arrays or tensors (B, …).

        Raises:
            InputError: a full buffer would not fit into the memory of the device.
        """
        super().add({name: self._placed(name, values) for name, values in columns.items()})

    def sample(self, n: int) -> dict[str, Any]:
        """Draw ``n`` episodes uniformly with replacement."""
        rows = self.rng.integers(0, self.size, n)
        on_device = torch.from_numpy(rows).to(self.device, non_blocking=True)
        return {name: values[rows if is_on_host(name) else on_device] for name, values in self.columns.items()}

    def _placed(self, name: str, values: Any) -> Any:
        """Return a column where it belongs."""
        if is_on_host(name):
            return self._array(values)
        if isinstance(values, np.ndarray):
            values = torch.from_numpy(values if values.flags.writeable else values.copy())
        return values.to(self.device)

    def _check_memory(self, columns: dict[str, Any]) -> None:
        if self.device.type != "cuda":
            return
        sizes = [values[:1].nbytes for name, values in columns.items() if not is_on_host(name)]
        needed, free = self.capacity * (sum(sizes) + max(sizes) / 2), torch.cuda.mem_get_info(self.device)[0]
        if needed > free:
            fits = int(self.capacity * free / needed)
            raise InputError(
                f"buffer_capacity is {self.capacity:,}: a full replay buffer takes {needed / 2**30:.1f} GiB, but "
                f"{free / 2**30:.1f} are free on the GPU; use at most {fits:,}, or sampling=arrays"
            )

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return the constructor's arguments, as RLlib's checkpoints need them."""
        return (self.capacity, self.seed, str(self.device)), {}

    def _zeros(self, values: Any, rows: int) -> Any:
        if isinstance(values, np.ndarray):
            return super()._zeros(values, rows)
        return torch.zeros((rows, *values.shape[1:]), dtype=values.dtype, device=values.device)

    def _array(self, values: Any) -> np.ndarray:
        return values if isinstance(values, np.ndarray) else values.cpu().numpy()
