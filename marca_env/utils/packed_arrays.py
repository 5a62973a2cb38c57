"""Arrays in few bytes, for pickles: the distinct values of each column, and compressed codes of them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PackedArray:
    """A numeric array whose columns repeat few values; :meth:`unpack` restores it to the bit."""

    shape: tuple[int, ...]
    dtype: str
    columns: tuple[tuple[bytes, str, bytes], ...]
    """For each column of the last axis: compressed distinct values, type of the codes, compressed codes."""

    @classmethod
    def pack(cls, array: np.ndarray) -> PackedArray:
        """Pack an array of one or more axes."""
        bits = np.dtype(f"u{array.dtype.itemsize}")
        width = array.shape[-1] if array.ndim > 1 else 1
        columns = []
        for column in np.ascontiguousarray(array).view(bits).reshape(-1, width).T:
            values, codes = np.unique(column, return_inverse=True)
            code_type = np.min_scalar_type(max(len(values) - 1, 0))
            coded = zlib.compress(codes.astype(code_type).tobytes())
            columns.append((zlib.compress(values.tobytes()), code_type.str, coded))
        return cls(array.shape, array.dtype.str, tuple(columns))

    def unpack(self) -> np.ndarray:
        """Return the array."""
        dtype = np.dtype(self.dtype)
        rows = []
        for values, code_type, codes in self.columns:
            distinct = np.frombuffer(zlib.decompress(values), dtype=dtype)
            rows.append(distinct[np.frombuffer(zlib.decompress(codes), dtype=code_type)])
        return np.ascontiguousarray(np.stack(rows, axis=-1).reshape(self.shape))
