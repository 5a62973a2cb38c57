"""Statistics over the runs of randomised methods: interquartile means, comparisons and their intervals.

They follow Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021): with few
runs, report intervals and distributions, not only means. All are pure functions of arrays (runs, tasks). Resampling is
stratified: runs are drawn with replacement within each task.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from marca_env.utils.errors import InputError

MOST_FLIPPED = 16
"""Most pairs for which every flip of signs is counted."""


def iqm(scores: np.ndarray) -> float:
    """Return the interquartile mean, that of the middle half of all ``scores`` (runs, tasks) or (runs,)."""
    return float(stats.trim_mean(np.asarray(scores, float), 0.25, axis=None))


def iqm_interval(
    scores: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the stratified percentile bootstrap interval of :func:`iqm`.

    Args:
        scores: (runs, tasks) or (runs,).
        confidence: level of the interval.
        resamples: draws of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        Low and high end; (nan, nan) with fewer than two runs.
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
    """Return Student's t interval of the mean of independent ``values`` (n,); (nan, nan) for fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return float(values.mean()) - half, float(values.mean()) + half


def probability_of_improvement(
    x: np.ndarray, y: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the probability that a run of X scores higher than one of Y, averaged over tasks; a tie counts half.

    Args:
        x: (runs of X, tasks) or (runs of X,).
        y: (runs of Y, tasks) or (runs of Y,), of the same tasks.
        confidence: level of the interval.
        resamples: draws of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        P(X > Y) + P(X = Y) / 2, for one task U / (runs of X · runs of Y) of Mann and Whitney; and low and high end of
        its stratified percentile bootstrap interval, nan with fewer than two runs of either.

    Raises:
        InputError: different tasks, no runs, or scores that are not finite.
    """
    x, y = _checked_scores(x, "x"), _checked_scores(y, "y")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"x has {x.shape[1]} tasks and y {y.shape[1]}; pass scores of the same tasks")
    gap = x[:, None] - y  # (X, Y, tasks)
    wins = (gap > 0) + 0.5 * (gap == 0)
    if min(len(x), len(y)) < 2:
        return float(wins.mean()), float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = np.einsum(
        "btx,xyt,bty->b", _draw_counts(x, resamples, rng), wins, _draw_counts(y, resamples, rng), optimize=True
    )
    low, high = np.quantile(drawn / wins.size, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(wins.mean()), float(low), float(high)


def performance_profile(
    scores: np.ndarray, thresholds: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the share of all runs that score above each threshold, and its band (Agarwal et al., 2021).

    Args:
        scores: (runs, tasks) or (runs,), normalised so that tasks can be compared.
        thresholds: (K,).
        confidence: level of the band.
        resamples: draws of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        Share, and low and high end of a stratified percentile bootstrap at each threshold, (K,) each. The ends are nan
        with fewer than two runs.

    Raises:
        InputError: no runs, or scores that are not finite.
    """
    scores = _checked_scores(scores, "scores")
    above = (scores > np.asarray(thresholds, float)[:, None, None]).astype(float)  # (K, runs, tasks)
    share = above.mean(axis=(1, 2))
    if len(scores) < 2:
        return share, np.full_like(share, np.nan), np.full_like(share, np.nan)
    counts = _draw_counts(scores, resamples, np.random.default_rng(seed))
    drawn = np.einsum("btr,krt->bk", counts, above, optimize=True) / scores.size
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return share, low, high


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of two methods a and b under the same random numbers."""

    mean: float
    """Mean of a − b."""
    low: float
    high: float
    """Ends of Student's t interval of the mean over pairs; nan for fewer than two. (A percentile bootstrap of 95 %
    covers the mean in 84 % of the cases with five pairs, in half of them with two.)"""
    p: float
    """Two-sided p value under the hypothesis that the sign of every difference is random."""
    least_p: float
    """Smallest p that n pairs can give, 2 / 2ⁿ where every flip of signs is counted: 0.0625 with five pairs."""
    pairs: int
    """Number of pairs n."""


def paired_difference(
    a: np.ndarray, b: np.ndarray, *, confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> PairedDifference:
    """Return the mean difference of pairs a, b (n,) that share a seed, with interval and sign-flip p value.

    All 2ⁿ flips are counted if they are at most 2¹⁶, else ``resamples`` of them are drawn.

    Raises:
        InputError: shapes that differ, no pairs, or values that are not finite.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1 or not len(a) or not np.isfinite([a, b]).all():
        raise InputError(
            f"pairs of shapes {a.shape} and {b.shape}; pass two finite arrays of the same shape (n,), n at least 1"
        )
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


def _checked_scores(scores: np.ndarray, name: str) -> np.ndarray:
    """Check scores and return them as (runs, tasks)."""
    scores = np.asarray(scores, float)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise InputError(f"{name}: pass finite scores (runs, tasks) or (runs,) of at least one run")
    return scores


def _draw_counts(scores: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw how often each run counts in each resample, (resamples, tasks, runs)."""
    runs, tasks = scores.shape
    return rng.multinomial(runs, np.full(runs, 1 / runs), size=(resamples, tasks)).astype(float)
