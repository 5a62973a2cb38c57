"""Log-normal durations: from measured quantiles to moments, sums, and the probability of missing a limit.

A duration is known by its mean and variance. Sums of independent durations add both; the sum is taken as the log-normal
with these two moments (Fenton, "The sum of log-normal probability distributions in scatter transmission systems",
IRE Transactions on Communications Systems 8(1), 1960). All functions work element by element on arrays of any shape;
times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

Z99 = float(ndtri(0.99))
"""Standard normal quantile of 99 %."""
_BISECTIONS = 40


@dataclass(frozen=True)
class Duration:
    """Log-normal durations, by mean and variance."""

    mean: np.ndarray
    """Seconds, any shape."""
    variance: np.ndarray
    """Seconds², the same shape; 0: the duration is its mean."""

    @classmethod
    def from_quantiles(cls, p50: np.ndarray, p99: np.ndarray) -> Duration:
        """Return the log-normal durations with these medians and 99 % quantiles (at least the medians), seconds."""
        p50, p99 = np.asarray(p50, dtype=np.float64), np.asarray(p99, dtype=np.float64)
        ratio = np.divide(p99, p50, out=np.ones_like(p50), where=p50 > 0)
        spread = (np.log(np.maximum(ratio, 1.0)) / Z99) ** 2  # σ²
        mean = p50 * np.exp(spread / 2)
        return cls(mean, mean**2 * np.expm1(spread))

    @classmethod
    def none(cls, shape: tuple[int, ...] = ()) -> Duration:
        """Return durations of zero."""
        return cls(np.zeros(shape), np.zeros(shape))

    def __add__(self, other: Duration) -> Duration:
        """Return the sum of independent durations, one after the other."""
        return Duration(self.mean + other.mean, self.variance + other.variance)

    def without(self, other: Duration) -> Duration:
        """Return the duration which, after ``other``, makes this one; where noise would make it negative, zero."""
        mean = np.maximum(self.mean - other.mean, 0.0)
        return Duration(mean, np.where(mean > 0, np.maximum(self.variance - other.variance, 0.0), 0.0))

    def take(self, index: np.ndarray | tuple | slice) -> Duration:
        """Return some of the durations, as numpy indexes arrays."""
        return Duration(self.mean[index], self.variance[index])

    def quantile(self, share: float) -> np.ndarray:
        """Return the time within which this share of each duration ends, seconds."""
        median, sigma = self._parameters()
        return median * np.exp(sigma * ndtri(share))

    def share_above(self, limit: float) -> np.ndarray:
        """Return the probability that each duration exceeds ``limit`` seconds."""
        return np.where(self._is_certain(), self.mean > limit, 1.0 - ndtr(self._standardised(limit)))

    def mean_up_to(self, limit: float) -> np.ndarray:
        """Return the mean of each duration cut off at ``limit`` seconds, E[min(X, limit)]."""
        standardised, sigma = self._standardised(limit), self._parameters()[1]
        cut = self.mean * ndtr(standardised - sigma) + limit * (1.0 - ndtr(standardised))
        return np.where(self._is_certain(), np.minimum(self.mean, limit), np.minimum(cut, self.mean))

    def _is_certain(self) -> np.ndarray:
        return (self.variance <= 0) | (self.mean <= 0)

    def _parameters(self) -> tuple[np.ndarray, np.ndarray]:
        """Return median and σ of the logarithm."""
        square = self.mean**2
        ratio = np.divide(self.variance, square, out=np.zeros_like(square), where=square > 0)
        spread = np.log1p(ratio)
        return self.mean * np.exp(-spread / 2), np.sqrt(spread)

    def _standardised(self, limit: float) -> np.ndarray:
        """Return (ln limit − ln median)/σ; 0 where the duration is certain."""
        median, sigma = self._parameters()
        where = ~self._is_certain()
        logarithm = np.log(np.where(where, median, 1.0))
        return np.divide(np.log(limit) - logarithm, sigma, out=np.zeros_like(logarithm), where=where)


def mixture_quantiles(durations: Duration, weights: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Return quantiles of a mixture of durations (n,), drawn with probabilities proportional to ``weights`` (n,).

    Args:
        durations: of n kinds.
        weights: not negative, not all zero.
        shares: of the quantiles, within (0, 1).

    Returns:
        A time for each share, seconds.
    """
    used = np.flatnonzero(weights)
    kinds, probabilities = durations.take(used), weights[used] / weights[used].sum()
    median, sigma = kinds._parameters()
    certain, logarithm = kinds._is_certain(), np.log(np.maximum(median, np.finfo(float).tiny))
    scale = np.where(certain, 1.0, sigma)

    def share_below(log_time: float) -> float:
        below = np.where(certain, logarithm <= log_time, ndtr((log_time - logarithm) / scale))
        return float(probabilities @ below)

    quantiles = []
    for share in shares:
        each = logarithm + np.where(certain, 0.0, sigma) * ndtri(share)
        low, high = float(each.min()), float(each.max()) + 1e-12  # the mixture's lies between those of its parts
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if share_below(middle) >= share else (middle, high)
        quantiles.append(np.exp(high))
    return np.array(quantiles)
