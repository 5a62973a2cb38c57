"""A replay buffer of tensors holds, draws and saves what the buffer of arrays does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from agents.rllib.core.replay import EpisodeBatch, EpisodeBuffer, EpisodeStream
from agents.rllib.core.tensor_replay import TensorBuffer, is_on_host
from agents.team.turn_plan import HOST_KEY

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")),
]


def episodes(n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "reward": rng.normal(size=(n, 2)).astype(np.float32),
        "terminated": np.tile([False, True], (n, 1)),
        "filled": np.ones((n, 2), bool),
        "state": rng.normal(size=(n, 3, 4)).astype(np.float32),
        "obs:a": rng.integers(255, size=(n, 3, 5)).astype(np.uint8),
        "mask:a": rng.random((n, 3, 2)) < 0.5,
        "turn:a": np.ones((n, 3), bool),
        "action:a": rng.integers(2, size=(n, 2)),
    }


def on_device(columns: dict[str, np.ndarray], device: str) -> dict[str, Any]:
    """Return the columns as a runner on that device returns them."""
    return {n: x if is_on_host(n) else torch.from_numpy(x).to(device) for n, x in columns.items()}


def assert_same(tensors: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    assert tensors.keys() == arrays.keys()
    for name, values in arrays.items():
        assert isinstance(tensors[name], np.ndarray) == is_on_host(name)
        np.testing.assert_array_equal(torch.as_tensor(tensors[name]).cpu(), values)


@pytest.mark.parametrize("device", DEVICES)
def test_it_draws_the_episodes_of_the_buffer_of_arrays(device: str) -> None:
    ours, theirs = TensorBuffer(10, 3, device), EpisodeBuffer(10, 3)
    for seed, n in enumerate((4, 3, 6, 25, 2)):  # wraps around, and more than fits
        ours.add(EpisodeBatch(on_device(episodes(n, seed), device), 1).columns)
        theirs.add(episodes(n, seed))
        assert (len(ours), ours.next) == (len(theirs), theirs.next)
        assert_same(ours.sample(7), theirs.sample(7))
    assert_same(ours.columns, theirs.columns)


@pytest.mark.parametrize("device", DEVICES)
def test_each_buffer_continues_from_the_checkpoint_of_the_other(device: str) -> None:
    ours, theirs = TensorBuffer(10, 3, device), EpisodeBuffer(10, 3)
    for buffer in (ours, theirs):
        buffer.add(episodes(6, 0))
        buffer.sample(2)
    new, other = TensorBuffer(10, 0, device), EpisodeBuffer(10, 0)
    new.set_state(theirs.state())
    other.set_state(ours.state())
    assert_same(new.sample(5), other.sample(5))
    again = TensorBuffer(*new.get_ctor_args_and_kwargs()[0])
    again.set_state(ours.state(content=False))
    assert len(again) == 0
    assert again.rng.bit_generator.state == ours.rng.bit_generator.state


@pytest.mark.parametrize("device", DEVICES)
def test_minibatches_need_no_copy_of_the_large_columns(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = TensorBuffer(10, 3, device)
    buffer.add(on_device(episodes(8, 0), device))
    stream = iter(EpisodeStream(buffer).iter_torch_batches(batch_size=4, device=device))
    monkeypatch.setattr(torch.Tensor, "cpu", lambda _: pytest.fail("read back"))
    batch = next(stream)
    assert batch[f"{DEFAULT_MODULE_ID}/state"].device.type == device
    host = batch[f"{DEFAULT_MODULE_ID}/{HOST_KEY}"]
    assert all(isinstance(x, np.ndarray) for x in host.values())
    assert host["filled"].shape == (4, 2)
