"""The order in which a log too large for memory is read, a pure function of seed, epoch and position.

An epoch reads the chunks of the log (:class:`agents.offline.chunks.LogChunk`) in a new random order, a few at a time.
The rows of these few chunks, a *window*, are shuffled together. Any position of any epoch can therefore be reached by
reading only the window that contains it. Workers that read windows import only this module, which does not need ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from agents.offline.chunks import LogChunk
from agents.offline.rows import read_chunk
from agents.offline.splits import Split
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError


@dataclass(frozen=True)
class ShufflePlan:
    """Windows of a log; each epoch reads every row once."""

    chunks: tuple[LogChunk, ...]
    scenario: Scenario
    window: int
    """Minimum number of rows that are shuffled together; a window consists of whole chunks."""
    seed: int = 0
    split: Split | None = None
    """If set, only the training rows of the split are read."""
    _memo: dict[int, list[tuple[int, ...]]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def total(self) -> int:
        """Number of rows of the log."""
        return sum(c.rows for c in self.chunks)

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of rows that are read from each chunk, (chunks,).

        Raises:
            InputError: no rows at all.
        """
        counts = np.array([c.rows if self.split is None else int(self._mask(c).sum()) for c in self.chunks])
        if counts.sum() == 0:
            raise InputError(f"{self.chunks[0].path}: no rows to learn from; use a larger log, or a larger share of it")
        return counts

    def windows(self, epoch: int) -> list[tuple[int, ...]]:
        """Return the chunk indices of each window of an epoch; the last window may be smaller."""
        if epoch not in self._memo:
            windows, window, rows = [], [], 0
            for chunk in np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.chunks)).tolist():
                window.append(chunk)
                rows += int(self.counts[chunk])
                if rows >= self.window:
                    windows.append(tuple(window))
                    window, rows = [], 0
            if rows:
                windows.append(tuple(window))
            self._memo.clear()
            self._memo[epoch] = windows
        return self._memo[epoch]

    def positions(self, start: int) -> Iterator[tuple[int, int, int]]:
        """Yield (epoch, window, rows of the window to skip) without end, from the ``start``-th drawn row on."""
        epoch, to_skip = divmod(start, int(self.counts.sum()))
        while True:
            for number, chunks in enumerate(self.windows(epoch)):
                n = int(self.counts[list(chunks)].sum())
                if to_skip < n:
                    yield epoch, number, to_skip
                to_skip = max(0, to_skip - n)
            epoch += 1

    def read(self, epoch: int, number: int) -> np.ndarray:
        """Read the shuffled rows of a window.

        Raises:
            InputError: a bad row; the message names file, row and column.
        """
        parts = []
        for k in self.windows(epoch)[number]:
            rows = read_chunk(self.chunks[k], self.scenario)
            parts.append(rows if self.split is None else rows[self._mask(self.chunks[k])])
        rows = np.concatenate(parts)
        return rows[np.random.default_rng([self.seed, 2, epoch, number]).permutation(len(rows))]

    def _mask(self, chunk: LogChunk) -> np.ndarray:
        assert self.split is not None
        return self.split.mask("train", chunk.file, chunk.first_row, chunk.offset, chunk.rows, self.total)


def read_window(plan: ShufflePlan, batch: dict[str, np.ndarray]) -> dict[str, list]:
    """Read the window that ``batch`` names; Ray Data runs this function in its workers.

    An error in the log is returned as data. An exception would reach the user wrapped in Ray's own error.
    """
    epoch, number = batch["position"][0]
    try:
        return {"rows": [plan.read(int(epoch), int(number)).tobytes()], "problem": [""]}
    except InputError as error:
        return {"rows": [b""], "problem": [str(error)]}
