"""Where the parts of an observation are, and all one-hots of a turn as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Places = tuple[np.ndarray, np.ndarray]
"""What is shown, and the column where it starts, both (n,) int."""


@dataclass(frozen=True)
class Layout:
    """Where the parts of a vector are."""

    hot: tuple[tuple[tuple[int, int], ...], ...]
    """One-hots at each turn: columns of [states, actions, 0], and the column where each starts."""
    settled: tuple[Places, ...]
    """Stages whose results are shown at each turn, and where."""
    results: tuple[int, ...]
    clusters: int
    prices: int
    size: int


def columns(pairs: Sequence[tuple[int, int]]) -> Places:
    """Pairs as two arrays."""
    of, start = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return of.copy(), start.copy()


def side_by_side(layouts: Sequence[Layout]) -> tuple[int, list[tuple[np.ndarray, ...]]]:
    """Length of all layouts, and the one-hots at each turn: arrays of code, start, size of its layout, columns before
    it."""
    before = np.cumsum([0, *(layout.size for layout in layouts)])
    hot = []
    for t in range(len(layouts[0].hot)):
        rows = [(of, start, x.size, b) for x, b in zip(layouts, before, strict=False) for of, start in x.hot[t]]
        hot.append(tuple(np.array(rows, dtype=np.int64).T.copy()))
    return int(before[-1]), hot
