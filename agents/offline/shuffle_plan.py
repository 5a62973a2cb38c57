"""The order in which a log too large for memory is read: a pure function of seed, epoch and place.

An epoch reads the pieces of the log (:class:`agents.offline.chunks.Piece`) in a new random order, a few at a time; the
rows of such a *window* are shuffled together. Any place of any epoch can therefore be reached without reading what
lies before it, but for the window that it lies in. Needs no ray: workers that read windows import this module alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from agents.offline.chunks import Piece
from agents.offline.rows import read_piece
from agents.offline.splits import Split
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError


@dataclass(frozen=True)
class WindowPlan:
    """Windows of a log, of which each epoch reads every row once."""

    pieces: tuple[Piece, ...]
    scenario: Scenario
    window: int
    """Rows that are shuffled together, at least; a window holds whole pieces."""
    seed: int = 0
    split: Split | None = None
    """Only its training rows are read."""
    _memo: dict[int, list[tuple[int, ...]]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def total(self) -> int:
        """Rows of the log."""
        return sum(p.rows for p in self.pieces)

    @cached_property
    def counts(self) -> np.ndarray:
        """Rows of each piece that are read, (pieces,).

        Raises:
            InputError: none at all.
        """
        counts = np.array([p.rows if self.split is None else int(self._mask(p).sum()) for p in self.pieces])
        if counts.sum() == 0:
            raise InputError(
                f"{self.pieces[0].path}: no rows to learn from; give a larger log, or a larger share of it"
            )
        return counts

    def windows(self, epoch: int) -> list[tuple[int, ...]]:
        """Numbers of the pieces of each window of an epoch; the last window may be a small one."""
        if epoch not in self._memo:
            found, held, rows = [], [], 0
            for piece in np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.pieces)).tolist():
                held.append(piece)
                rows += int(self.counts[piece])
                if rows >= self.window:
                    found.append(tuple(held))
                    held, rows = [], 0
            if rows:
                found.append(tuple(held))
            self._memo.clear()
            self._memo[epoch] = found
        return self._memo[epoch]

    def places(self, start: int) -> Iterator[tuple[int, int, int]]:
        """Endless (epoch, window, rows of it to leave out) from the ``start``-th row drawn on."""
        epoch, left = divmod(start, int(self.counts.sum()))
        while True:
            for number, pieces in enumerate(self.windows(epoch)):
                n = int(self.counts[list(pieces)].sum())
                if left < n:
                    yield epoch, number, left
                left = max(0, left - n)
            epoch += 1

    def read(self, epoch: int, number: int) -> np.ndarray:
        """The shuffled rows of a window.

        Raises:
            InputError: a bad row, naming file, row and column.
        """
        parts = []
        for k in self.windows(epoch)[number]:
            rows = read_piece(self.pieces[k], self.scenario)
            parts.append(rows if self.split is None else rows[self._mask(self.pieces[k])])
        rows = np.concatenate(parts)
        return rows[np.random.default_rng([self.seed, 2, epoch, number]).permutation(len(rows))]

    def _mask(self, piece: Piece) -> np.ndarray:
        assert self.split is not None
        return self.split.mask("train", piece.file, piece.first_row, piece.offset, piece.rows, self.total)


def read_window(plan: WindowPlan, batch: dict[str, np.ndarray]) -> dict[str, list]:
    """Read the one window that ``batch`` names; what Ray Data runs in its workers.

    A complaint about the log comes back as data: as an exception it would reach the user inside Ray's own.
    """
    epoch, number = batch["place"][0]
    try:
        return {"rows": [plan.read(int(epoch), int(number)).tobytes()], "problem": [""]}
    except InputError as error:
        return {"rows": [b""], "problem": [str(error)]}
