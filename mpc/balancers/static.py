"""Constant prices: the simplest balancer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marca_env.utils.errors import InputError, shown
from marca_env.utils.validation import as_real_array

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation


class StaticBalancer:
    """Sets the same prices in every minute.

    Args:
        prices: (G,) currency per core-second.

    Raises:
        InputError: prices that are negative or not finite, or not one per cluster.
    """

    def __init__(self, prices: Any) -> None:
        self.prices = np.atleast_1d(as_real_array("prices", prices, "give one number per cluster"))
        if not np.all(np.isfinite(self.prices)) or np.any(self.prices < 0) or self.prices.ndim != 1:
            raise InputError(
                f"prices are {shown(self.prices.tolist())}; give one finite number, not negative, per cluster"
            )

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Return the constant prices (G,)."""
        return self.prices.copy()

    def reset(self) -> None:
        """Do nothing: this balancer has no memory."""
