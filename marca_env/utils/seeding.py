"""Random streams in which the k-th episode of a batch draws the same numbers as the k-th of a single environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

_AHEAD = 64
"""Numbers that a separate stream draws at once."""


class UniformSource(Protocol):
    """Source of uniform numbers in [0, 1): a ``numpy.random.Generator``, or numbers drawn in advance."""

    def random(self, size: int, /) -> np.ndarray:
        """Draw ``size`` numbers."""
        ...


class EpisodeStreams(Protocol):
    """Two random streams of a batch of episodes: ``states`` draws requests, ``noise`` draws their outcomes."""

    @property
    def states(self) -> UniformSource:
        """Source of the requests."""
        ...

    @property
    def noise(self) -> UniformSource:
        """Source of their outcomes."""
        ...

    def begin_episodes(self) -> None:
        """Start the next batch of episodes."""
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


class SeparateStreams:
    """Random streams in which episode k of the batch has its own: that of a single environment with the k-th seed.

    Args:
        seeds: one seed per episode of the batch; ``None``: a random one.
        requests: requests of an episode.
    """

    def __init__(self, seeds: Sequence[int | None], requests: int = 1) -> None:
        pairs = [np.random.default_rng(seed).spawn(2) for seed in seeds]
        self.states, self.noise = (_SeparateUniforms([pair[n] for pair in pairs], requests) for n in range(2))

    def begin_episodes(self) -> None:
        """Start the next batch of episodes."""
        self.states.begin_episodes()
        self.noise.begin_episodes()

    def reseed(self, seeds: Sequence[int | None]) -> None:
        """Start the streams anew whose seed is a number; the others continue."""
        for k, seed in enumerate(seeds):
            if seed is not None:
                for stream, rng in zip((self.states, self.noise), np.random.default_rng(seed).spawn(2), strict=True):
                    stream.replace(k, rng)


class _SeparateUniforms:
    """Numbers of B generators, drawn for many episodes ahead, because one number at a time is slow."""

    def __init__(self, rngs: list[np.random.Generator], requests: int) -> None:
        self._rngs, self._requests = rngs, requests
        self._ahead = max(1, _AHEAD // requests)
        self._drawn = np.empty((0, requests, len(rngs)))  # the episodes to come
        self.begin_episodes()

    def begin_episodes(self) -> None:
        """Forget the numbers that the last episodes did not use."""
        self._rest: Iterator[np.ndarray] | None = None

    def replace(self, k: int, rng: np.random.Generator) -> None:
        """Draw the numbers of episode k from another generator from now on."""
        self._rngs[k] = rng
        self._drawn[:, :, k] = rng.random(self._drawn.shape[:2])

    def random(self, size: int, /) -> np.ndarray:
        """Return the next number of each of ``size`` = B episodes."""
        if self._rest is None:
            if not len(self._drawn):
                shape = (self._ahead, self._requests)
                self._drawn = np.stack([rng.random(shape) for rng in self._rngs], axis=-1)
            self._rest, self._drawn = iter(self._drawn[0]), self._drawn[1:]
        return next(self._rest)


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
