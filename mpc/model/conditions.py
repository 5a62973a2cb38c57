"""Inputs of the system model: the conditions s_t of a minute (Eq. 18, arXiv 2512.24325) and the scale of prices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from marca_env.utils.units import MINUTES_PER_DAY

HARMONICS = 2
COST_FLOOR = 1e-6
"""Core-seconds per request. Smaller costs count as this cost, so that their logarithm is finite."""


@dataclass(frozen=True)
class Conditions:
    """Conditions of a minute, s_t in Eq. 18, prices apart. The leading shape (…) is a batch, a horizon or empty.

    Attributes:
        qps: (…) requests per second, measured or forecast.
        minute: (…) minute of the day.
        degradation: (…,G) degradation levels in force.
    """

    qps: np.ndarray
    minute: np.ndarray
    degradation: np.ndarray

    def select(self, index: Any) -> Conditions:
        """Return the conditions of some minutes, by an index of the leading shape."""
        return Conditions(self.qps[index], self.minute[index], self.degradation[index])


class PriceScale:
    """The scale u = log(1 + λ/s), on which prices of all magnitudes are comparable, λ = 0 included.

    Args:
        scale: s (G,), currency per core-second.
    """

    def __init__(self, scale: np.ndarray) -> None:
        self.scale = np.asarray(scale, dtype=np.float64)

    def to_log(self, prices: np.ndarray) -> np.ndarray:
        """Return the log prices u (…,G) of prices λ (…,G); negative prices count as zero."""
        return np.log1p(np.maximum(prices, 0.0) / self.scale)

    def to_price(self, log_prices: np.ndarray) -> np.ndarray:
        """Return the prices λ (…,G) of log prices u (…,G)."""
        return self.scale * np.expm1(log_prices)


def time_features(minute: np.ndarray, windows: int) -> np.ndarray:
    """Return the harmonics of the day, then the one-hot window of the day: (…) → (…, 2·HARMONICS + windows).

    Args:
        minute: (…) minute of the day.
        windows: number of equal windows of a day.
    """
    minute = np.asarray(minute, dtype=np.float64) % MINUTES_PER_DAY
    angles = 2 * math.pi * np.arange(1, HARMONICS + 1) * minute[..., None] / MINUTES_PER_DAY
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(*minute.shape, 2 * HARMONICS)
    return np.concatenate([waves, np.eye(windows)[window_of_day(minute, windows)]], axis=-1)


def window_of_day(minute: np.ndarray, windows: int) -> np.ndarray:
    """Return the window (…) of the day that each minute (…) lies in, 0 … ``windows`` − 1.

    Args:
        minute: (…) minute of the day.
        windows: number of equal windows of a day.
    """
    return (np.asarray(minute) % MINUTES_PER_DAY * windows // MINUTES_PER_DAY).astype(np.int64)
