"""Rewards of a request: functions of its outcome and the prices λ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from marca_env.models.engine import RequestOutcome

RewardFunction = Callable[[RequestOutcome, np.ndarray], np.ndarray]
"""``(outcome, prices) → reward (B,)``; prices are (G,), or (B,G) in a window of requests."""


def revenue(outcome: RequestOutcome, prices: np.ndarray) -> np.ndarray:
    """Return the revenue, (B,) currency."""
    return outcome.revenue


def lagrangian(outcome: RequestOutcome, prices: np.ndarray) -> np.ndarray:
    """Return revenue − Σ_g λ_g C_g, (B,) currency: the objective of Eq. 6."""
    return outcome.revenue - priced_computation(outcome, prices)


def priced_computation(outcome: RequestOutcome, prices: np.ndarray) -> np.ndarray:
    """Return Σ_g λ_g C_g, the cost of the computation at the prices, (B,) currency."""
    return (outcome.cost * prices).sum(axis=1)


REWARDS: dict[str, RewardFunction] = {"revenue": revenue, "lagrangian": lagrangian}
"""Name of a reward → its function."""
