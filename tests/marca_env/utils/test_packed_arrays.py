"""Packed arrays come back to the bit and take few bytes where values repeat."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from marca_env.utils.packed_arrays import PackedArray


@pytest.mark.parametrize("shape", [(7,), (5, 3), (4, 3, 2), (0, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_arrays_come_back_to_the_bit(shape, dtype):
    array = np.random.default_rng(0).normal(scale=9, size=shape).astype(dtype)
    array.reshape(-1)[:1] = -0.0
    back = pickle.loads(pickle.dumps(PackedArray.pack(array))).unpack()
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_repeated_values_take_few_bytes():
    array = np.tile(np.random.default_rng(0).normal(size=(50, 3)), (1000, 1))
    assert len(pickle.dumps(PackedArray.pack(array))) < array.nbytes / 50
