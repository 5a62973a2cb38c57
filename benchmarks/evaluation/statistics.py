"""Statistics over the runs of randomised methods: interquartile means, comparisons and their intervals.

After Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021): few runs, so
intervals and distributions instead of means alone. All are pure functions of arrays (runs, tasks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from marca_env.utils.errors import InputError

MOST_FLIPPED = 16
"""Pairs up to which every flip of signs is counted."""


def iqm(scores: np.ndarray) -> float:
    """Interquartile mean: of the middle half of all ``scores`` (runs, tasks) or (runs,), as rliable has it."""
    return float(stats.trim_mean(np.asarray(scores, float), 0.25, axis=None))


def iqm_interval(
    scores: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of :func:`iqm`, runs drawn anew within each task (stratified).

    Args:
        scores: (runs, tasks) or (runs,). With fewer than two runs the interval is (nan, nan).
    """
    scores = np.asarray(scores, float)
    scores = scores[:, None] if scores.ndim == 1 else scores
    runs, tasks = scores.shape
    if runs < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, runs, (resamples, runs, tasks))
    means = stats.trim_mean(scores[drawn, np.arange(tasks)].reshape(resamples, -1), 0.25, axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def mean_interval(values: np.ndarray, *, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of independent ``values`` (n,); (nan, nan) of fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return float(values.mean()) - half, float(values.mean()) + half


def probability_of_improvement(
    x: np.ndarray, y: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """How likely a run of X scores higher than one of Y, a tie counted half, averaged over tasks.

    Args:
        x: (runs of X, tasks) or (runs of X,).
        y: (runs of Y, tasks) or (runs of Y,), of the same tasks.

    Returns:
        P(X > Y) + P(X = Y) / 2, which of one task is U / (runs of X · runs of Y) of Mann and Whitney, and its
        percentile bootstrap interval, runs of either drawn anew within each task: (nan, nan) with fewer than two.

    Raises:
        InputError: other tasks, no runs, or scores that are not finite.
    """
    x, y = _runs(x, "x"), _runs(y, "y")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"x and y must have the same tasks; got {x.shape[1]} and {y.shape[1]}")
    gap = x[:, None] - y  # (X, Y, tasks)
    wins = (gap > 0) + 0.5 * (gap == 0)
    if min(len(x), len(y)) < 2:
        return float(wins.mean()), float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = np.einsum("btx,xyt,bty->b", _drawn(x, resamples, rng), wins, _drawn(y, resamples, rng), optimize=True)
    low, high = np.quantile(drawn / wins.size, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(wins.mean()), float(low), float(high)


def performance_profile(
    scores: np.ndarray, thresholds: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of all runs that score above each threshold, and its band (Agarwal et al., 2021).

    Args:
        scores: (runs, tasks) or (runs,), normalised so that tasks compare.
        thresholds: (K,).

    Returns:
        Share, low and high, (K,) each: a percentile bootstrap at every threshold, runs drawn anew within each task;
        nan with fewer than two runs.

    Raises:
        InputError: no runs, or scores that are not finite.
    """
    scores = _runs(scores, "scores")
    above = (scores > np.asarray(thresholds, float)[:, None, None]).astype(float)  # (K, runs, tasks)
    share = above.mean(axis=(1, 2))
    if len(scores) < 2:
        return share, np.full_like(share, np.nan), np.full_like(share, np.nan)
    counts = _drawn(scores, resamples, np.random.default_rng(seed))
    drawn = np.einsum("btr,krt->bk", counts, above, optimize=True) / scores.size
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return share, low, high


@dataclass(frozen=True)
class PairedDifference:
    """Of two methods under the same random numbers."""

    mean: float
    """Of a − b."""
    low: float
    high: float
    """Student's t interval of the mean over pairs; nan of fewer than two. A percentile bootstrap that says 95 % covers
    the mean in 84 % of the cases with five pairs, in half of them with two."""
    p: float
    """Two-sided, that the sign of every difference is a coin's."""
    least_p: float
    """The smallest p that so many pairs can give, 2 / 2ⁿ where every flip of signs is counted: with five pairs 0.0625,
    whatever they show."""
    pairs: int


def paired_difference(
    a: np.ndarray, b: np.ndarray, *, confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> PairedDifference:
    """Mean difference of pairs a, b (n,) that share a seed, with interval and sign-flip p value.

    All 2ⁿ flips are counted where they are no more than 2¹⁶, else ``resamples`` are drawn.

    Raises:
        InputError: shapes that differ, no pairs, or values that are not finite.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1 or not len(a) or not np.isfinite([a, b]).all():
        raise InputError(f"pairs need two finite arrays of one shape (n,), n at least 1; got {a.shape}, {b.shape}")
    n, mean = len(a), float((a - b).mean())
    if n == 1:
        return PairedDifference(mean, float("nan"), float("nan"), 1.0, 1.0, 1)
    rng, exact = np.random.default_rng(seed), n <= MOST_FLIPPED
    test = stats.permutation_test(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if exact else resamples,
        batch=1 << 12,
        rng=rng,
    )
    low, high = mean_interval(a - b, confidence=confidence)
    least = 2.0 ** (1 - n) if exact else 2.0 / (resamples + 1)
    return PairedDifference(mean, low, high, float(test.pvalue), least, n)


def _runs(scores: np.ndarray, name: str) -> np.ndarray:
    """(runs, tasks), checked."""
    scores = np.asarray(scores, float)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise InputError(f"{name}: needs finite scores (runs, tasks) or (runs,), one run at least")
    return scores


def _drawn(scores: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each run is drawn, (resamples, tasks, runs)."""
    runs, tasks = scores.shape
    return rng.multinomial(runs, np.full(runs, 1 / runs), size=(resamples, tasks)).astype(float)
