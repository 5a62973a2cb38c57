"""PID feedback on the load, in the style of CRAS, RL-MPCA and SACA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from marca_env.utils.argument_types import checked_arguments, checked_fields
from marca_env.utils.errors import InputError, unknown_option
from mpc.balancers.base import PRICE_MAX, check_price_max, clip_prices, telemetry_fault
from mpc.balancers.saved_state import to_array, to_lists, to_optional_array
from mpc.validation import FINITE_NOT_NEGATIVE, FINITE_POSITIVE, FRACTION_BELOW_ONE, check_fields

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation

FORMS = ("logarithmic", "additive")


@dataclass(frozen=True)
@checked_fields
class FeedbackSettings:
    """Gains of :class:`FeedbackBalancer`. The error of a cluster is load/budget − (1 − margin)."""

    proportional: float = 0.6
    """Price change per unit of error. The price itself accumulates, so this gain alone removes a lasting error."""
    integral: float = 0.02
    """Price change per unit of the summed error; it follows a steady rise of traffic without lag."""
    derivative: float = 0.0
    """Price change per unit of change of the error. The readings are a minute old, so this mostly adds noise."""
    form: Literal["logarithmic", "additive"] = "logarithmic"
    """``logarithmic``: the controller moves log(1 + λ/scale), which acts alike at every magnitude of price;
    ``additive``: it moves λ/scale."""
    scale: float | tuple[float, ...] = 1.0
    """Unit of the prices, currency per core-second; one number, or one per cluster."""
    near: float = 0.1
    """An error of at most this size counts as near the target."""
    start_after: int = 3
    """M, the number of consecutive readings near the target that starts the integrator."""
    below: float = 0.15
    """An error below minus this counts as well below the target."""
    reset_after: int = 5
    """The number of consecutive readings well below the target that resets the integrator."""
    integral_limit: float = 1.0
    """Bound on the size of the summed error."""
    step_limit: float = 2.0
    """Largest change of the controlled quantity in one minute."""
    margin: float = 0.0
    """Distance of the target load below the budget, as a fraction of the budget."""
    release_margin: float = 0.0
    """Least margin while a cluster is degraded, so that overload protection is released."""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise InputError(unknown_option("form of feedback", self.form, FORMS))
        check_fields(
            self,
            {
                **dict.fromkeys(("proportional", "integral", "derivative"), FINITE_NOT_NEGATIVE),
                **dict.fromkeys(("near", "below", "integral_limit", "step_limit"), FINITE_POSITIVE),
                **dict.fromkeys(("start_after", "reset_after"), FINITE_POSITIVE),
                **dict.fromkeys(("margin", "release_margin"), FRACTION_BELOW_ONE),
                "scale": FINITE_POSITIVE,
            },
            prefix="feedback: ",
        )


class FeedbackBalancer:
    """Sets prices by PID feedback: λ ← max(0, λ + PID(load/budget − 1)).

    Anti-windup: the integrator starts after M consecutive readings near the target and is reset after several
    consecutive readings well below it. It does not sum while the price is at a bound and the error pushes it further.
    The price in force is read from the telemetry, so that another balancer may hand over at any minute.

    Args:
        settings: gains and limits.
        price_max: () or (G,) upper bound of the prices, currency per core-second.
    """

    @checked_arguments
    def __init__(self, settings: FeedbackSettings | None = None, *, price_max: float | np.ndarray = PRICE_MAX) -> None:
        self.settings = settings or FeedbackSettings()
        self.price_max = check_price_max(price_max)
        self.reset()

    def reset(self) -> None:
        """Empty the integrator and forget the last error."""
        self._error_sum: np.ndarray | None = None
        self._last_error: np.ndarray | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as values of JSON."""
        state: dict[str, Any] = {"error_sum": to_lists(self._error_sum), "last_error": to_lists(self._last_error)}
        if self._error_sum is not None:
            state |= {"near_count": to_lists(self._near_count), "below_count": to_lists(self._below_count)}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InputError: a damaged state, or one of another number of clusters.
        """
        error_sum = to_optional_array(state, "error_sum", (-1,))
        if error_sum is not None:
            counts = [to_array(state, name, error_sum.shape) for name in ("near_count", "below_count")]
            self._near_count, self._below_count = counts
        self._last_error = to_optional_array(state, "last_error", (-1,) if error_sum is None else error_sum.shape)
        self._error_sum = error_sum

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Return the prices (G,) for the coming minute; unusable telemetry leaves the prices in force."""
        prices = clip_prices(observation.prices, self.price_max)
        if telemetry_fault(observation, limit=np.inf) is not None:
            self._last_error = None
            return prices
        s, degraded = self.settings, np.asarray(observation.degradation) > 0
        margin = np.where(degraded, max(s.margin, s.release_margin), s.margin)
        error = np.asarray(observation.load) / np.asarray(observation.budget) - (1.0 - margin)  # (G,)
        if self._error_sum is None:
            self._error_sum, self._near_count, self._below_count = (np.zeros_like(error) for _ in range(3))
        change = np.zeros_like(error) if self._last_error is None else error - self._last_error
        self._last_error = error
        self._integrate(error, prices)
        move = s.proportional * error + s.integral * self._error_sum + s.derivative * change
        return self._move_prices(prices, np.clip(move, -s.step_limit, s.step_limit))

    def _integrate(self, error: np.ndarray, prices: np.ndarray) -> None:
        s = self.settings
        assert self._error_sum is not None
        self._near_count = np.where(np.abs(error) <= s.near, self._near_count + 1, 0)
        self._below_count = np.where(error < -s.below, self._below_count + 1, 0)
        saturated = ((prices <= 0) & (error < 0)) | ((prices >= self.price_max) & (error > 0))
        active = (self._near_count >= s.start_after) | (self._error_sum != 0)
        summed = np.where(active & ~saturated, self._error_sum + error, self._error_sum)
        summed = np.clip(summed, -s.integral_limit, s.integral_limit)
        self._error_sum = np.where(self._below_count >= s.reset_after, 0.0, summed)

    def _move_prices(self, prices: np.ndarray, move: np.ndarray) -> np.ndarray:
        scale = np.asarray(self.settings.scale, dtype=np.float64)
        if self.settings.form == "additive":
            return clip_prices(prices + scale * move, self.price_max)
        return clip_prices(scale * np.expm1(np.maximum(np.log1p(prices / scale) + move, 0.0)), self.price_max)
