"""Episodes as arrays: the batch that runners return, the ring buffer, and the endless minibatches drawn from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.checkpoints import Checkpointable

from agents.offline.episodes import Columns
from marca_env.utils.errors import InputError


class EpisodeBatch(MultiAgentBatch):
    """Whole episodes, one per row: columns (B, T, …) or (B, T + 1, …). Counted in environment steps."""

    def __init__(self, columns: Mapping[str, Any], n_agents: int) -> None:
        steps = int(np.asarray(columns["filled"]).sum())
        super().__init__({DEFAULT_MODULE_ID: SampleBatch(dict(columns))}, env_steps=steps)
        self.n_agents = n_agents

    @property
    def columns(self) -> Columns:
        """The columns as plain arrays."""
        return dict(self.policy_batches[DEFAULT_MODULE_ID])

    def agent_steps(self) -> int:
        """Steps of all agents together."""
        return self.count * self.n_agents

    def __reduce__(self) -> Any:
        return EpisodeBatch, (self.columns, self.n_agents)


class EpisodeBuffer(Checkpointable):
    """Ring of the latest episodes. Its content and its random state are part of a checkpoint.

    In memory an episode of T steps takes about 4·(T + 1)·(state + observations) bytes: 3.8 kB with the default
    scenario, 190 MB for 50,000 episodes. A checkpoint holds the filled part alone, compressed: observations are
    mostly zeros, and those 190 MB become 11, written in a second. Dense observations hardly shrink.

    Args:
        capacity: most episodes that it keeps.
        seed: of the draws.
    """

    def __init__(self, capacity: int, seed: int | None = None) -> None:
        self.capacity, self.seed = capacity, seed
        self.size = self.next = 0
        self.columns: Columns = {}
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return self.size

    def add(self, columns: Columns) -> None:
        """Append episodes, the oldest giving way."""
        n = len(columns["reward"])
        if n > self.capacity:
            columns, n = {k: v[-self.capacity :] for k, v in columns.items()}, self.capacity
        if not self.columns:
            self.columns = {k: np.zeros((self.capacity, *v.shape[1:]), v.dtype) for k, v in columns.items()}
        rows = (self.next + np.arange(n)) % self.capacity
        for name, values in columns.items():
            self.columns[name][rows] = values
        self.next = int((self.next + n) % self.capacity)
        self.size = min(self.capacity, self.size + n)

    def sample(self, n: int) -> Columns:
        """``n`` episodes drawn evenly with replacement."""
        rows = self.rng.integers(0, self.size, n)
        return {name: values[rows] for name, values in self.columns.items()}

    def return_scale(self) -> float:
        """Standard deviation of the returns of the episodes that it keeps."""
        return float(self.columns["reward"][: self.size].sum(1).std())

    def state(self, *, content: bool = True) -> dict[str, Any]:
        """What a checkpoint holds; without ``content`` only the random state."""
        state: dict[str, Any] = {"rng": self.rng.bit_generator.state}
        if content:
            held = {name: pack(values[: self.size]) for name, values in self.columns.items()}
            state |= {"columns": held, "next": self.next, "size": self.size}
        return state

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        return self.state()

    def set_state(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]
        if "columns" not in state:
            return
        self.columns, self.size, self.next = {}, 0, 0
        if state["size"]:
            self.add({name: unpack(packed) for name, packed in state["columns"].items()})
        self.next = int(state["next"]) % self.capacity if state["size"] == self.capacity else self.size % self.capacity

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        return (self.capacity, self.seed), {}


def pack(values: np.ndarray) -> dict[str, Any]:
    """An array as compressed bytes with its type and shape."""

    raw = np.ascontiguousarray(values)
    data = pa.compress(raw.tobytes(), codec="zstd", asbytes=True)
    return {"dtype": raw.dtype.str, "shape": raw.shape, "zstd": data}


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """The array that :func:`pack` took."""

    dtype, shape = np.dtype(packed["dtype"]), tuple(packed["shape"])
    size = int(np.prod(shape)) * dtype.itemsize
    raw = pa.decompress(packed["zstd"], decompressed_size=size, codec="zstd", asbytes=True)
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


class EpisodeStream:
    """What RLlib takes for a data iterator: endless minibatches from a buffer, prefixed with the module's id."""

    def __init__(self, buffer: EpisodeBuffer) -> None:
        self.buffer = buffer

    def iter_torch_batches(
        self, *, batch_size: int, device: Any = "cpu", **_: Any
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Minibatches of ``batch_size`` episodes on ``device``."""
        return _Minibatches(self.buffer, batch_size, device)


class _Minibatches(Iterator[dict[str, torch.Tensor]]):
    """No generator: one that has raised counts as exhausted, and RLlib would ask it for a next epoch for ever."""

    def __init__(self, buffer: Any, batch_size: int, device: Any) -> None:
        self.buffer, self.batch_size, self.device = buffer, batch_size, device

    def __next__(self) -> dict[str, torch.Tensor]:
        if len(self.buffer) == 0:
            raise InputError("nothing to learn from: the buffer is empty")
        drawn = self.buffer.sample(self.batch_size)
        return {f"{DEFAULT_MODULE_ID}/{k}": torch.as_tensor(v).to(self.device) for k, v in drawn.items()}
