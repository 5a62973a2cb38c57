"""Training, validation and test rows of a log, so that an evaluation never touches a row that was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marca_env.utils.errors import InputError, unknown_option

WAYS = ("hash", "period")
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Which rows belong to which part; it depends on where a row stands in the log, never on what it says.

    ``hash`` draws each row's part from a hash of its file's number and its row number, so that it stays where it is
    when files are appended. (A hash of the values would put equal rows on one side, and a log is full of equal rows
    that earned nothing.) ``period`` takes the last rows of the log for the test and those before them for the
    validation: right for logs in the order of time, where tomorrow is to be predicted.
    """

    by: str = "hash"
    validation: float = 0.1
    """Share of the rows, in [0, 1)."""
    test: float = 0.1
    seed: int = 0
    """Of the hash."""

    def __post_init__(self) -> None:
        if self.by not in WAYS:
            raise InputError(unknown_option("split", self.by, WAYS))
        for name in ("validation", "test"):
            share = getattr(self, name)
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
                raise InputError(f"{name} share is {share!r}; it must lie in [0, 1)")
        if self.validation + self.test >= 1:
            raise InputError(
                f"validation and test shares are {self.validation} and {self.test}: nothing is left to train on"
            )

    def mask(self, part: str, file: int, first_row: int, offset: int, rows: int, total: int) -> np.ndarray:
        """Which of consecutive rows of a file belong to ``part``, (rows,) bool.

        Args:
            file: number of the file in the log.
            first_row: rows of the file before them.
            offset: rows of the log before them.
            rows: how many they are.
            total: rows of the log.

        Raises:
            InputError: an unknown part.
        """
        if part not in PARTS:
            raise InputError(unknown_option("part", part, PARTS))
        if self.by == "hash":
            place = _uniform(np.arange(first_row, first_row + rows, dtype=np.uint64), file, self.seed)
        else:  # the end of the log comes first: test, then validation
            place = 1.0 - (np.arange(offset, offset + rows) + 0.5) / total
        low, high = {
            "test": (0.0, self.test),
            "validation": (self.test, self.test + self.validation),
            "train": (self.test + self.validation, np.inf),
        }[part]
        return (place >= low) & (place < high)


def _uniform(rows: np.ndarray, file: int, seed: int) -> np.ndarray:
    """A number in [0, 1) for each row, by the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = rows + np.uint64((file << 40) & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):
        for k in range(2):  # the seed enters between two rounds, so that seeds do not merely shift the rows
            x = x + np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
            if k == 0:
                x = x ^ np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
