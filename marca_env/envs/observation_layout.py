"""Positions of the parts of an observation vector, as index arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

IndexedColumns = tuple[np.ndarray, np.ndarray]
"""Indices of items, and the column where each item starts, both (n,) int."""


@dataclass(frozen=True)
class Layout:
    """Positions of the parts of one vector."""

    one_hots: tuple[tuple[tuple[int, int], ...], ...]
    """One-hots at each turn: index into [states, actions, 0], whose states have W columns, and start column of each."""
    settled_results: tuple[IndexedColumns, ...]
    """Results (counts, then signals) that are visible at each turn, and their columns."""
    results: tuple[int, ...]
    """Columns of all counts of candidates."""
    unbounded: tuple[int, ...]
    """Columns of numbers and signals, which may be negative."""
    numbers: IndexedColumns
    """Columns of a state that hold numbers, and their columns here."""
    time: int | None
    """Column of the time that earlier stages have used; ``None`` without a latency limit."""
    clusters: int
    """First column of the clusters' state."""
    prices: int
    """First column of the prices."""
    size: int
    """Length of the vector."""


def as_indexed_columns(pairs: Sequence[tuple[int, int]]) -> IndexedColumns:
    """Return pairs of index and column as two arrays."""
    index, column = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return index.copy(), column.copy()


def join_layouts(layouts: Sequence[Layout]) -> tuple[int, list[tuple[np.ndarray, ...]]]:
    """Return the total length of the layouts and, for each turn, the one-hots of all of them.

    The one-hots of a turn are four arrays (n,): index, start column, size of the layout, and columns before it.
    """
    before = np.cumsum([0, *(layout.size for layout in layouts)])
    one_hots = []
    for t in range(len(layouts[0].one_hots)):
        rows = [
            (index, start, layout.size, offset)
            for layout, offset in zip(layouts, before, strict=False)
            for index, start in layout.one_hots[t]
        ]
        one_hots.append(tuple(np.array(rows, dtype=np.int64).T.copy()))
    return int(before[-1]), one_hots
