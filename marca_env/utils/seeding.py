"""Random streams in which the k-th episode of a batch draws the same numbers as the k-th of a single environment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np


class UniformSource(Protocol):
    """Source of uniform numbers in [0, 1): a ``numpy.random.Generator``, or numbers drawn in advance."""

    def random(self, size: int, /) -> np.ndarray:
        """Draw ``size`` numbers."""
        ...


class RandomStreams:
    """Two random streams of a batch of episodes: ``states`` draws requests, ``noise`` draws their outcomes.

    Args:
        seed: seed of both streams.
        requests: requests of an episode.
    """

    def __init__(self, seed: int | None, requests: int = 1) -> None:
        states, noise = np.random.default_rng(seed).spawn(2)
        self._predrawn = [_PredrawnUniforms(rng, requests) for rng in (states, noise) if requests > 1]
        self.states: UniformSource
        self.noise: UniformSource
        self.states, self.noise = self._predrawn or (states, noise)

    def begin_episodes(self) -> None:
        """Start the next batch of episodes."""
        for stream in self._predrawn:
            stream.begin_episodes()


class _PredrawnUniforms:
    """Numbers drawn for whole episodes: episode k of B parallel ones gets those of the k-th sequential episode."""

    def __init__(self, rng: np.random.Generator, requests: int) -> None:
        self._rng, self._requests = rng, requests
        self.begin_episodes()

    def begin_episodes(self) -> None:
        """Forget the numbers that the last episodes did not use."""
        self._rest: Iterator[np.ndarray] | None = None

    def random(self, size: int, /) -> np.ndarray:
        """Return the next number of each of ``size`` episodes."""
        if self._rest is None:
            self._rest = iter(self._rng.random((size, self._requests)).T)
        return next(self._rest)
