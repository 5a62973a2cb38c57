"""Primal-dual steps on the prices, in the style of GreenFlow."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.units import MINUTES_PER_DAY
from marca_env.utils.validation import as_real_array
from mpc.balancers.base import PRICE_MAX, check_price_max, clip_prices, telemetry_fault
from mpc.balancers.saved_state import to_array, to_lists
from mpc.validation import FINITE_POSITIVE, check_values, whole_number

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation


class PrimalDualBalancer:
    """Sets prices by online dual ascent: λ ← max(0, λ + η · (mean load/budget of a window − 1)).

    Args:
        rate: η, currency per core-second for an overload of one budget; a number or (G,).
        window: number of minutes over which the load is averaged.
        price_max: () or (G,) upper bound of the prices, currency per core-second.

    Raises:
        InputError: a setting outside its range.
    """

    @checked_arguments
    def __init__(self, rate: Any, *, window: int = 1, price_max: float | np.ndarray = PRICE_MAX) -> None:
        self.rate = as_real_array("rate", rate, "give one positive number, or one per cluster")
        rules = {"rate": FINITE_POSITIVE, "window": whole_number(1, MINUTES_PER_DAY)}
        check_values({"rate": self.rate, "window": window}, rules)
        self.window = window
        self.price_max = check_price_max(price_max)
        self.reset()

    def reset(self) -> None:
        """Forget the errors of the window."""
        self._errors: deque[np.ndarray] = deque(maxlen=self.window)

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as values of JSON."""
        return {"errors": [to_lists(error) for error in self._errors]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InputError: a damaged state, or one of another number of clusters.
        """
        is_empty = isinstance(state, Mapping) and state.get("errors") == []
        self._errors = deque([] if is_empty else to_array(state, "errors", (-1, -1)), maxlen=self.window)

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Return the prices (G,) for the coming minute; unusable telemetry leaves the prices in force."""
        prices = clip_prices(observation.prices, self.price_max)
        if telemetry_fault(observation, limit=np.inf) is not None:
            return prices
        self._errors.append(np.asarray(observation.load) / np.asarray(observation.budget) - 1.0)
        return clip_prices(prices + self.rate * np.mean(self._errors, axis=0), self.price_max)
