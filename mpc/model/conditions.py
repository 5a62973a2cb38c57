"""What a minute is like to the system model: s_t of Eq. 18 (arXiv 2512.24325), and the scale of prices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

HARMONICS = 2
FLOOR = 1e-6
"""Core-seconds per request below which a cost counts as this much."""


@dataclass(frozen=True)
class Conditions:
    """What a minute is like, prices aside: s_t. Leading shape (…) is a batch, a horizon, or nothing.

    Attributes:
        qps: (…) requests per second, measured or forecast.
        minute: (…) minute of the day.
        degradation: (…,G) levels in force.
    """

    qps: np.ndarray
    minute: np.ndarray
    degradation: np.ndarray

    def rows(self, index: Any) -> Conditions:
        """The same for some of the rows."""
        return Conditions(self.qps[index], self.minute[index], self.degradation[index])


class PriceScale:
    """u = log(1 + λ/s): prices of all magnitudes on one scale, λ = 0 included. Shapes (…,G)."""

    def __init__(self, scale: np.ndarray) -> None:
        self.scale = np.asarray(scale, dtype=np.float64)  # (G,) currency per core-second

    def to_log(self, prices: np.ndarray) -> np.ndarray:
        return np.log1p(np.maximum(prices, 0.0) / self.scale)

    def to_price(self, log_prices: np.ndarray) -> np.ndarray:
        return self.scale * np.expm1(log_prices)


def time_features(minute: np.ndarray, windows: int) -> np.ndarray:
    """Harmonics of the day, then which of its ``windows`` equal parts: (…) → (…, 2·HARMONICS + windows)."""
    minute = np.asarray(minute, dtype=np.float64) % 1440
    angles = 2 * math.pi * np.arange(1, HARMONICS + 1) * minute[..., None] / 1440
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(*minute.shape, 2 * HARMONICS)
    part = (minute * windows // 1440).astype(np.int64)
    return np.concatenate([waves, np.eye(windows)[part]], axis=-1)
