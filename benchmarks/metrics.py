"""Figures of merit: pure functions of arrays."""

from __future__ import annotations

import numpy as np
from scipy import stats


def utilisation(load: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """μ = mean(min(Ĉ, C_m) / C_m) (Eq. 21) of ``load`` (minutes, G) against ``budget`` (G,): (G,)."""
    return (np.minimum(load, budget) / budget).mean(axis=0)


def overutilisation(load: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """ν = mean((max(Ĉ, C_m) − C_m) / C_m) (Eq. 22) of ``load`` (minutes, G) against ``budget`` (G,): (G,)."""
    return ((np.maximum(load, budget) - budget) / budget).mean(axis=0)


def ratio_interval(
    numerator: np.ndarray, denominator: np.ndarray, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Paired bootstrap interval of Σ numerator / Σ denominator − 1 over blocks (blocks,).

    Blocks must be long enough to be about independent. With fewer than two blocks the interval is (nan, nan).
    """
    if len(numerator) < 2:
        return float("nan"), float("nan")
    result = stats.bootstrap(
        (numerator, denominator),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis) - 1.0,
        paired=True,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
