"""The protocol of balancers, and the checks of prices and telemetry that they share.

A balancer sets λ, the price of computation in currency per core-second, one for each of G clusters. A request takes
the action of highest value less λ times its cost (Eq. 6, arXiv 2512.24325), so a higher price lowers the load.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from marca_env.traffic.control import Balancer as Balancer
from marca_env.traffic.control import ControlObservation
from marca_env.utils.errors import InputError, shown
from marca_env.utils.validation import as_real_array

PRICE_MAX = 1e6
"""Default upper bound of a price, currency per core-second. No computation earns this much."""


def telemetry_fault(observation: ControlObservation, limit: float = 50.0) -> str | None:
    """Return why an observation cannot be used, or ``None`` if it can.

    Args:
        observation: the telemetry.
        limit: a load of more than this many budgets counts as an error of measurement.
    """
    if not (np.isfinite(observation.qps) and observation.qps >= 0):
        return f"qps is {observation.qps}; it must be finite and not negative"
    for name in ("load", "budget"):
        value = np.asarray(getattr(observation, name), dtype=np.float64)
        if not np.all(np.isfinite(value)) or np.any(value < 0):
            return f"{name} is {value.tolist()}; it must be finite and not negative"
    if np.any(observation.load > limit * np.asarray(observation.budget)):
        return f"load is {np.asarray(observation.load).tolist()}, more than {limit:g} times the budget"
    if not np.all(np.asarray(observation.budget) > 0):
        return f"budget is {np.asarray(observation.budget).tolist()}; it must be positive"
    return None


def clip_prices(prices: Any, price_max: float | np.ndarray) -> np.ndarray:
    """Return the prices (G,) clipped to [0, price_max]; NaN counts as zero."""
    prices = np.nan_to_num(np.asarray(prices, dtype=np.float64), nan=0.0, posinf=np.inf, neginf=0.0)
    return np.clip(prices, 0.0, price_max)


def check_price_max(price_max: float | np.ndarray) -> np.ndarray:
    """Return ``price_max`` as an array, () or (G,).

    Raises:
        InputError: a bound that is not finite or not positive.
    """
    limit = as_real_array("price_max", price_max, "give one positive number, or one per cluster")
    if not np.all(np.isfinite(limit)) or np.any(limit <= 0):
        raise InputError(
            f"price_max is {shown(limit.tolist())}; it must be finite and positive, currency per core-second"
        )
    return limit
