"""Balancers: what sets the prices λ of the clusters, minute by minute, one protocol for all.

Static rules; bisection on replayed requests (DCAF); feedback (PID, as in CRAS-, RL-MPCA- and SACA-style systems);
primal–dual steps (GreenFlow-style). The model-predictive one is :class:`mpc.MPCBalancer`.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from marca_env.utils.errors import InputError, unknown_option

if TYPE_CHECKING:
    from marca_env.traffic.clusters import ControlObservation

PRICE_MAX = 1e6
"""Default bound of a price, currency per core-second: far above what any computation earns."""


@runtime_checkable
class Balancer(Protocol):
    """Sets prices from telemetry."""

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Prices (G,) for the coming minute, finite and within [0, price_max]."""
        ...

    def reset(self) -> None:
        """Forget all telemetry, as at the start of a day."""
        ...


def telemetry_fault(observation: ControlObservation, limit: float = 50.0) -> str | None:
    """What makes an observation unusable, or ``None``: values that are not finite, negative, or beyond all reason.

    Args:
        observation: the telemetry.
        limit: a load of more than this many budgets is not believed.
    """
    if not (np.isfinite(observation.qps) and observation.qps >= 0):
        return f"qps is {observation.qps}"
    for name in ("load", "budget"):
        value = np.asarray(getattr(observation, name), dtype=np.float64)
        if not np.all(np.isfinite(value)) or np.any(value < 0):
            return f"{name} is {value.tolist()}"
    if np.any(observation.load > limit * np.asarray(observation.budget)):
        return f"load is {np.asarray(observation.load).tolist()}, more than {limit:g} times the budget"
    if not np.all(np.asarray(observation.budget) > 0):
        return f"budget is {np.asarray(observation.budget).tolist()}"
    return None


def bounded(prices: Any, price_max: float | np.ndarray) -> np.ndarray:
    """Prices (G,) within [0, price_max]; what is not a number counts as zero."""
    prices = np.nan_to_num(np.asarray(prices, dtype=np.float64), nan=0.0, posinf=np.inf, neginf=0.0)
    return np.clip(prices, 0.0, price_max)


def check_price_max(price_max: float | np.ndarray) -> np.ndarray:
    """``price_max`` as an array, () or (G,)."""
    limit = np.asarray(price_max, dtype=np.float64)
    if not np.all(np.isfinite(limit)) or np.any(limit <= 0):
        raise InputError(f"price_max is {limit.tolist()}; it must be finite and positive, currency per core-second")
    return limit


class StaticBalancer:
    """The same prices always.

    Args:
        prices: (G,) currency per core-second.
    """

    def __init__(self, prices: Any) -> None:
        self.prices = np.atleast_1d(np.asarray(prices, dtype=np.float64))
        if not np.all(np.isfinite(self.prices)) or np.any(self.prices < 0) or self.prices.ndim != 1:
            raise InputError(f"prices are {self.prices.tolist()}; give one finite number, not negative, per cluster")

    def update(self, observation: ControlObservation) -> np.ndarray:
        return self.prices.copy()

    def reset(self) -> None:
        pass


@dataclass(frozen=True)
class FeedbackSettings:
    """Gains of :class:`FeedbackBalancer`; the error is used/C_m − (1 − margin)."""

    proportional: float = 0.6
    """Price change per unit of error. The price itself accumulates, so this alone leaves no lasting error."""
    integral: float = 0.02
    """Price change per unit of the summed error: follows a steady rise of traffic without lag."""
    derivative: float = 0.0
    """Price change per unit of change of the error; with readings a minute late it mostly adds noise."""
    form: Literal["logarithmic", "additive"] = "logarithmic"
    """``logarithmic``: the controller moves log(1 + λ/scale), alike at every magnitude; ``additive``: λ/scale."""
    scale: float | tuple[float, ...] = 1.0
    """Unit of the prices, currency per core-second; one number or one per cluster."""
    near: float = 0.1
    """A reading within this error counts as near the target ..."""
    start_after: int = 3
    """... and this many such readings in a row (M) start the integrator."""
    below: float = 0.15
    """A reading this far below the target counts as well below ..."""
    reset_after: int = 5
    """... and this many such readings in a row (N) empty the integrator."""
    integral_limit: float = 1.0
    """Bound of the summed error."""
    step_limit: float = 2.0
    """Largest change of the controlled quantity in one minute."""
    margin: float = 0.0
    """The load aimed at is this share below the budget."""
    release_margin: float = 0.0
    """While a cluster is degraded, the margin is at least this, so that overload protection lets go."""

    def __post_init__(self) -> None:
        if self.form not in ("logarithmic", "additive"):
            raise InputError(unknown_option("form of feedback", self.form, ("logarithmic", "additive")))
        for name in ("proportional", "integral", "derivative"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"feedback: {name} is {getattr(self, name)}; it must be finite and not negative")
        for name in ("near", "below", "integral_limit", "step_limit", "start_after", "reset_after"):
            if not getattr(self, name) > 0:
                raise InputError(f"feedback: {name} is {getattr(self, name)}; it must be positive")
        for name in ("margin", "release_margin"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"feedback: {name} is {getattr(self, name)}; it must lie in [0, 1)")
        scale = np.asarray(self.scale, dtype=np.float64)
        if not np.all(np.isfinite(scale)) or np.any(scale <= 0):
            raise InputError(f"feedback: scale is {self.scale}; it must be finite and positive")


class FeedbackBalancer:
    """PID feedback: λ ← max(0, λ + PID(used/C_m − 1)), one minute late by construction.

    Anti-windup: the integrator starts only after M readings in a row near the target, is emptied after N readings
    in a row well below it, and does not sum while the price is held at a bound that the error pushes against.
    The price in force is read from the telemetry, so that another balancer may hand over at any minute.

    Args:
        settings: gains and limits.
        price_max: () or (G,) bound of the prices.
    """

    def __init__(self, settings: FeedbackSettings | None = None, *, price_max: float | np.ndarray = PRICE_MAX) -> None:
        self.settings = settings or FeedbackSettings()
        self.price_max = check_price_max(price_max)
        self.reset()

    def reset(self) -> None:
        self._sum: np.ndarray | None = None
        self._last_error: np.ndarray | None = None

    def update(self, observation: ControlObservation) -> np.ndarray:
        prices = bounded(observation.prices, self.price_max)
        if telemetry_fault(observation, limit=np.inf) is not None:
            self._last_error = None
            return prices
        s, degraded = self.settings, np.asarray(observation.degradation) > 0
        margin = np.where(degraded, max(s.margin, s.release_margin), s.margin)
        error = np.asarray(observation.load) / np.asarray(observation.budget) - (1.0 - margin)  # (G,)
        if self._sum is None:
            self._sum, self._near, self._below = (np.zeros_like(error) for _ in range(3))
        change = np.zeros_like(error) if self._last_error is None else error - self._last_error
        self._last_error = error
        self._integrate(error, prices)
        move = s.proportional * error + s.integral * self._sum + s.derivative * change
        return self._moved(prices, np.clip(move, -s.step_limit, s.step_limit))

    def _integrate(self, error: np.ndarray, prices: np.ndarray) -> None:
        s = self.settings
        assert self._sum is not None
        self._near = np.where(np.abs(error) <= s.near, self._near + 1, 0)
        self._below = np.where(error < -s.below, self._below + 1, 0)
        held = ((prices <= 0) & (error < 0)) | ((prices >= self.price_max) & (error > 0))
        active = (self._near >= s.start_after) | (self._sum != 0)
        summed = np.where(active & ~held, self._sum + error, self._sum)
        summed = np.clip(summed, -s.integral_limit, s.integral_limit)
        self._sum = np.where(self._below >= s.reset_after, 0.0, summed)

    def _moved(self, prices: np.ndarray, move: np.ndarray) -> np.ndarray:
        scale = np.asarray(self.settings.scale, dtype=np.float64)
        if self.settings.form == "additive":
            return bounded(prices + scale * move, self.price_max)
        return bounded(scale * np.expm1(np.maximum(np.log1p(prices / scale) + move, 0.0)), self.price_max)


class PrimalDualBalancer:
    """Online dual ascent (GreenFlow-style): λ ← max(0, λ + η · (mean used/C_m of a window − 1)).

    Args:
        rate: η, currency per core-second for an overload of one budget; a number or (G,).
        window: minutes that the cost is averaged over.
        price_max: () or (G,) bound of the prices.
    """

    def __init__(self, rate: Any, *, window: int = 1, price_max: float | np.ndarray = PRICE_MAX) -> None:
        self.rate = np.asarray(rate, dtype=np.float64)
        if not np.all(np.isfinite(self.rate)) or np.any(self.rate <= 0):
            raise InputError(f"rate is {self.rate.tolist()}; it must be finite and positive")
        if window < 1:
            raise InputError(f"window is {window} minutes; it must be at least 1")
        self.window = window
        self.price_max = check_price_max(price_max)
        self.reset()

    def reset(self) -> None:
        self._errors: deque[np.ndarray] = deque(maxlen=self.window)

    def update(self, observation: ControlObservation) -> np.ndarray:
        prices = bounded(observation.prices, self.price_max)
        if telemetry_fault(observation, limit=np.inf) is not None:
            return prices
        self._errors.append(np.asarray(observation.load) / np.asarray(observation.budget) - 1.0)
        return bounded(prices + self.rate * np.mean(self._errors, axis=0), self.price_max)


class DitheredBalancer:
    """Another balancer's prices with a slowly varying random factor: makes logs that a system model can learn from.

    Under feedback the price follows the traffic, and nothing in the log tells the two apart; a known disturbance of
    the price does.

    Args:
        base: the balancer that is disturbed; ``base`` sees the prices really in force.
        seed: of the disturbance.
        spread: standard deviation of the log factor.
        memory: correlation of the factor from one minute to the next, in [0, 1).
        zero: chance that a cluster's price is zero for a minute.
        price_max: () or (G,) bound of the prices.
    """

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
        if not (spread >= 0 and 0 <= memory < 1 and 0 <= zero <= 1):
            raise InputError(
                f"dither: spread {spread} must be ≥ 0, memory {memory} in [0, 1) and zero {zero} in [0, 1]"
            )
        self.base, self.spread, self.memory, self.zero = base, spread, memory, zero
        self.price_max = check_price_max(price_max)
        self._rng = np.random.default_rng(seed)
        self._factor: np.ndarray | None = None
        self._undisturbed: np.ndarray | None = None

    def reset(self) -> None:
        self.base.reset()
        self._factor = self._undisturbed = None

    def update(self, observation: ControlObservation) -> np.ndarray:
        if self._undisturbed is not None:  # the base carries on from its own price, else the dither would drift
            observation = dataclasses.replace(observation, prices=self._undisturbed)
        self._undisturbed = self.base.update(observation)
        noise = self._rng.normal(0.0, self.spread, self._undisturbed.shape)
        kept = noise if self._factor is None else self._factor
        self._factor = self.memory * kept + np.sqrt(1 - self.memory**2) * noise
        silent = self._rng.random(self._undisturbed.shape) < self.zero
        return bounded(np.where(silent, 0.0, self._undisturbed * np.exp(self._factor)), self.price_max)
