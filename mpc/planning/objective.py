"""Eq. 17 (arXiv 2512.24325): what every solver of the balancing problem minimises, and its derivative.

    J = Σ_i α^i (y_i − target)²  +  β Σ_i α^i e_i (y_i − y_{i−1})²  [second sum where the damping term applies]

over loads y (N,G) in units of the budgets; e_i is the emphasis of minute i, more than 1 in a peak slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from marca_env.utils.errors import InputError, unknown_option

DAMPING = ("predicted", "measured", "none")


@dataclass(frozen=True)
class ObjectiveSettings:
    """Eq. 17 and its two readings."""

    horizon: int = 10
    """N, minutes."""
    alpha: float = 0.4
    """α, weight of a minute relative to the one before."""
    beta: float = 8.0
    """β, weight of the damping term."""
    damping: Literal["predicted", "measured", "none"] = "predicted"
    """Where the damping term applies. ``predicted``: in each minute whose predicted load reaches the threshold;
    ``measured``: in the whole horizon when the load of the last minute did; ``none``: nowhere."""
    threshold: float = 1.0
    """Load, as a share of the budget, at which damping starts: 1 in the paper; the reference code has a critical
    threshold below the budget, 44/46."""
    peak_slots: tuple[tuple[int, int], ...] = ()
    """Peak slots as (first minute, last minute) of the day, both included; may pass midnight."""
    peak_emphasis: float = 2.0
    """Factor of the damping weight within a peak slot; 2 in the reference code."""
    margin: float = 0.0
    """The load aimed at is this share below the budget."""
    proximity: float = 1e-4
    """ρ, pull towards the nominal prices; settles prices that do not matter."""

    def __post_init__(self) -> None:
        whole = isinstance(self.horizon, int) and not isinstance(self.horizon, bool)
        if not (whole and self.horizon >= 1):
            raise InputError(f"horizon is {self.horizon!r}; it must be a whole number of minutes, at least 1")
        if not 0 < self.alpha <= 1:
            raise InputError(f"alpha is {self.alpha}; it must lie in (0, 1]")
        if not (np.isfinite(self.beta) and self.beta >= 0):
            raise InputError(f"beta is {self.beta}; it must be finite and not negative")
        if self.damping not in DAMPING:
            raise InputError(unknown_option("damping", self.damping, DAMPING))
        if not 0 <= self.margin < 1:
            raise InputError(f"margin is {self.margin}; it must lie in [0, 1), a share of the budget")
        if not (np.isfinite(self.threshold) and self.threshold > 0 and self.proximity >= 0):
            raise InputError(f"threshold is {self.threshold} and proximity {self.proximity}; they must be positive")
        if not (np.isfinite(self.peak_emphasis) and self.peak_emphasis > 0):
            raise InputError(f"peak_emphasis is {self.peak_emphasis}; it must be finite and positive")
        for slot in self.peak_slots:
            if len(slot) != 2 or not all(0 <= minute < 1440 for minute in slot):
                raise InputError(f"peak_slots holds {slot!r}; give pairs (first, last) of minutes in 0 to 1439")

    def emphasis(self, minutes: np.ndarray) -> np.ndarray:
        """(N,) factor of the damping weight at ``minutes`` (N,) of the day."""
        minutes = np.asarray(minutes)
        inside = np.zeros(minutes.shape, dtype=bool)
        for first, last in self.peak_slots:
            within = (minutes >= first) & (minutes <= last)
            inside |= within if first <= last else (minutes >= first) | (minutes <= last)
        return np.where(inside, self.peak_emphasis, 1.0)


class Now(NamedTuple):
    """Where a plan starts."""

    in_force: np.ndarray
    """(G,) log prices of the last minute."""
    load: np.ndarray
    """(G,) load of the last minute, in budgets."""
    target: np.ndarray
    """(G,) or (N,G) load to aim at, in budgets."""
    emphasis: Any = 1.0
    """(N,) factor of the damping weight in each minute, or a number."""


class Objective:
    """Eq. 17 itself, on any load sequence."""

    def __init__(self, settings: ObjectiveSettings | None = None) -> None:
        self.settings = settings or ObjectiveSettings()
        self.weights = self.settings.alpha ** np.arange(self.settings.horizon)  # (N,), α^i

    def damped(self, loads: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Where the damping term applies. Loads (…,N,G) and the last load (G,) are in budgets; (…,N,G) bool."""
        s = self.settings
        if s.damping == "none":
            return np.zeros(loads.shape, dtype=bool)
        if s.damping == "measured":
            return np.broadcast_to(last >= s.threshold, loads.shape)
        return loads >= s.threshold * (1 + 1e-6)  # a load held at the budget itself is not over it

    def damping_weights(self, damped: np.ndarray, emphasis: Any = 1.0) -> np.ndarray:
        """β α^i e_i where ``damped`` (…,N,G), 0 elsewhere."""
        return (self.settings.beta * self.weights * emphasis)[:, None] * damped

    def __call__(
        self, loads: np.ndarray, last: np.ndarray, target: np.ndarray | None = None, emphasis: Any = 1.0
    ) -> np.ndarray:
        """J (…) of loads (…,N,G) after the last load (G,), in units of the budgets.

        Args:
            loads: the loads.
            last: load of the minute before.
            target: (G,) or (N,G) loads to aim at; ``None``: 1 less the margin.
            emphasis: (N,) factor of the damping weight, or a number.
        """
        return self.fixed(loads, last, self.damped(loads, last), target, emphasis)

    def fixed(
        self,
        loads: np.ndarray,
        last: np.ndarray,
        damped: np.ndarray,
        target: np.ndarray | None = None,
        emphasis: Any = 1.0,
    ) -> np.ndarray:
        """J (…) where the damping term applies as ``damped`` (…,N,G) says; convex in the loads."""
        aim = 1 - self.settings.margin if target is None else target
        terms = self.weights[:, None] * (loads - aim) ** 2
        if damped.any():
            steps = loads - self._before(loads, last)
            terms = terms + self.damping_weights(damped, emphasis) * steps**2
        return terms.sum((-2, -1))

    def gradient(
        self, loads: np.ndarray, last: np.ndarray, target: np.ndarray | None = None, emphasis: Any = 1.0
    ) -> np.ndarray:
        """∂J/∂y (…,N,G), the set of damped minutes held as it is."""
        aim = 1 - self.settings.margin if target is None else target
        pull = 2 * self.damping_weights(self.damped(loads, last), emphasis) * (loads - self._before(loads, last))
        slope = 2 * self.weights[:, None] * (loads - aim) + pull
        slope[..., :-1, :] -= pull[..., 1:, :]
        return slope

    @staticmethod
    def _before(loads: np.ndarray, last: np.ndarray) -> np.ndarray:
        return np.concatenate([np.broadcast_to(last, loads[..., :1, :].shape), loads[..., :-1, :]], axis=-2)
