"""How well budgets are used: utilisation μ and over-utilisation ν (Eq. 21 and 22, arXiv 2512.24325).

Shapes: T minutes, G clusters. A load in budgets goes with a budget of 1.
"""

from __future__ import annotations

import numpy as np


def utilisation(load: np.ndarray, budget: np.ndarray | float = 1.0, weights: np.ndarray | None = None) -> np.ndarray:
    """Return μ = mean(min(Ĉ, C_m) / C_m) of each cluster (Eq. 21).

    Args:
        load: (T,G) load Ĉ, core-seconds per second.
        budget: (), (G,) or (T,G) budget C_m, in the unit of the load.
        weights: (T,G) weight of each minute; ``None``: equal weights. A cluster without any weight gets nan.

    Returns:
        (G,) shares of the budget.
    """
    return _mean(np.minimum(load, budget) / budget, weights)


def overutilisation(
    load: np.ndarray, budget: np.ndarray | float = 1.0, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return ν = mean((max(Ĉ, C_m) − C_m) / C_m) of each cluster (Eq. 22).

    Args:
        load: (T,G) load Ĉ, core-seconds per second.
        budget: (), (G,) or (T,G) budget C_m, in the unit of the load.
        weights: (T,G) weight of each minute; ``None``: equal weights. A cluster without any weight gets nan.

    Returns:
        (G,) shares of the budget.
    """
    return _mean((np.maximum(load, budget) - budget) / budget, weights)


def _mean(shares: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Return the mean over minutes, (T,G) → (G,)."""
    if weights is None:
        return shares.mean(axis=0)
    total = weights.sum(axis=0)
    return np.where(total > 0, (shares * weights).sum(axis=0) / np.maximum(total, 1.0), np.nan)
