"""Training, validation and test rows of a log; an evaluation never uses a row that was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marca_env.utils.argument_types import checked_fields
from marca_env.utils.errors import InputError, unknown_option

SPLIT_METHODS = ("hash", "period")
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
@checked_fields
class Split:
    """Assignment of rows to parts; it depends on the position of a row in the log, never on its values.

    ``hash`` draws each row's part from a hash of its file index and its row number, so that the part does not change
    when files are appended. A hash of the values would put equal rows into one part, and a log has many equal rows
    that earned nothing. ``period`` takes the last rows of the log for the test and the rows before them for the
    validation. It suits logs in chronological order, where the future is to be predicted.
    """

    by: str = "hash"
    """``hash`` or ``period``."""
    validation: float = 0.1
    """Share of the validation rows, in [0, 1)."""
    test: float = 0.1
    """Share of the test rows, in [0, 1)."""
    seed: int = 0
    """Seed of the hash."""

    def __post_init__(self) -> None:
        if self.by not in SPLIT_METHODS:
            raise InputError(unknown_option("split", self.by, SPLIT_METHODS))
        for name in ("validation", "test"):
            share = getattr(self, name)
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
                raise InputError(f"{name} share is {share!r}; use a number in [0, 1)")
        if self.validation + self.test >= 1:
            raise InputError(
                f"validation and test shares are {self.validation} and {self.test}: nothing is left to train on; "
                "use shares with a sum below 1"
            )

    def mask(self, part: str, file: int, first_row: int, offset: int, rows: int, total: int) -> np.ndarray:
        """Return which of consecutive rows of a file belong to ``part``, (rows,) bool.

        Args:
            part: ``train``, ``validation`` or ``test``.
            file: index of the file in the log.
            first_row: number of rows of the file before these rows.
            offset: number of rows of the log before these rows.
            rows: number of these rows.
            total: number of rows of the log.

        Raises:
            InputError: an unknown part.
        """
        if part not in PARTS:
            raise InputError(unknown_option("part", part, PARTS))
        if self.by == "hash":
            position = _uniform_hash(np.arange(first_row, first_row + rows, dtype=np.uint64), file, self.seed)
        else:  # counted from the end of the log: test, then validation
            position = 1.0 - (np.arange(offset, offset + rows) + 0.5) / total
        low, high = {
            "test": (0.0, self.test),
            "validation": (self.test, self.test + self.validation),
            "train": (self.test + self.validation, np.inf),
        }[part]
        return (position >= low) & (position < high)


def _uniform_hash(rows: np.ndarray, file: int, seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each row, from the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = rows + np.uint64((file << 40) & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):
        for k in range(2):  # the seed enters between two rounds, so that a seed does not only shift the rows
            x = x + np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
            if k == 0:
                x = x ^ np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
