"""Random variation of prices, so that a system model can learn their effect from the log."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.validation import as_seed
from mpc.balancers.base import PRICE_MAX, Balancer, check_price_max, clip_prices
from mpc.validation import FRACTION, FRACTION_BELOW_ONE, at_least, check_values

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation


class DitheredBalancer:
    """Multiplies another balancer's prices by a random factor that varies slowly.

    Under feedback the price follows the traffic, and the log alone cannot separate their effects on the load. A known
    random disturbance of the price makes them separable.

    Args:
        base: the balancer whose prices are disturbed. It is given its own undisturbed prices as the prices in force.
        seed: seed of the disturbance.
        spread: standard deviation of the logarithm of the factor.
        memory: correlation of the factor from one minute to the next, in [0, 1).
        zero: probability that a cluster's price is zero for a minute.
        price_max: () or (G,) upper bound of the prices, currency per core-second.

    Raises:
        InputError: a setting outside its range.
    """

    @checked_arguments
    def __init__(
        self,
        base: Balancer,
        *,
        seed: int,
        spread: float = 0.5,
        memory: float = 0.8,
        zero: float = 0.01,
        price_max: float | np.ndarray = PRICE_MAX,
    ) -> None:
        check_values(
            {"spread": spread, "memory": memory, "zero": zero},
            {"spread": at_least(0), "memory": FRACTION_BELOW_ONE, "zero": FRACTION},
            prefix="dither: ",
        )
        self.base, self.spread, self.memory, self.zero = base, spread, memory, zero
        self.price_max = check_price_max(price_max)
        self._rng = np.random.default_rng(as_seed(seed))
        self._log_factor: np.ndarray | None = None
        self._undisturbed: np.ndarray | None = None

    def reset(self) -> None:
        """Forget telemetry and the factor; the random generator goes on."""
        self.base.reset()
        self._log_factor = self._undisturbed = None

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Return the disturbed prices (G,) for the coming minute."""
        if self._undisturbed is not None:  # the base continues from its own price, else the dither would accumulate
            observation = dataclasses.replace(observation, prices=self._undisturbed)
        self._undisturbed = self.base.update(observation)
        noise = self._rng.normal(0.0, self.spread, self._undisturbed.shape)
        previous = noise if self._log_factor is None else self._log_factor
        self._log_factor = self.memory * previous + np.sqrt(1 - self.memory**2) * noise
        is_zero = self._rng.random(self._undisturbed.shape) < self.zero
        return clip_prices(np.where(is_zero, 0.0, self._undisturbed * np.exp(self._log_factor)), self.price_max)
