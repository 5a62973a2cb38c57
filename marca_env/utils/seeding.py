"""Where chance comes from: streams in which the k-th episode of a batch is the k-th of a single environment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np


class UniformSource(Protocol):
    """A ``numpy.random.Generator``, or numbers that were drawn before."""

    def random(self, size: int, /) -> np.ndarray: ...


class RandomStreams:
    """The streams of a batch of episodes: one for the requests that come, one for the noise of what they bring.

    Args:
        seed: of both.
        requests: of an episode.
    """

    def __init__(self, seed: int | None, requests: int = 1) -> None:
        states, noise = np.random.default_rng(seed).spawn(2)
        self._ahead = [_DrawnAhead(rng, requests) for rng in (states, noise) if requests > 1]
        self.states: UniformSource
        self.noise: UniformSource
        self.states, self.noise = self._ahead or (states, noise)

    def begin(self) -> None:
        """The next episodes."""
        for stream in self._ahead:
            stream.begin()


class _DrawnAhead:
    """Numbers of whole episodes, so that the k-th of B side by side gets those of the k-th of a single environment."""

    def __init__(self, rng: np.random.Generator, requests: int) -> None:
        self._rng, self._requests = rng, requests
        self.begin()

    def begin(self) -> None:
        self._left: Iterator[np.ndarray] | None = None

    def random(self, size: int, /) -> np.ndarray:
        if self._left is None:
            self._left = iter(self._rng.random((size, self._requests)).T)
        return next(self._left)
