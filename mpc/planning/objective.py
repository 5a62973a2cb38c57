"""The objective of Eq. 17 (arXiv 2512.24325), its settings and its derivative; every planning method minimises it.

    J = Σ_i α^i (y_i − target)²  +  β Σ_i α^i e_i (y_i − y_{i−1})²  [second sum where the damping term applies]

over loads y (N,G) as fractions of the budgets. N is the horizon in minutes, G the number of clusters, e_i the emphasis
of minute i, which is above 1 in a peak slot.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.units import MINUTES_PER_DAY
from mpc.validation import (
    FINITE_NOT_NEGATIVE,
    FINITE_POSITIVE,
    FRACTION_ABOVE_ZERO,
    MARGIN,
    at_least,
    check_fields,
    whole_number,
)

DAMPING = ("predicted", "measured", "none")
MAX_DEVIATIONS = 4.0
"""Greatest distance of a plan below the threshold, in standard deviations of a predicted load."""
_MINUTE = whole_number(0, MINUTES_PER_DAY - 1)
_DISTANCES = np.linspace(0.0, MAX_DEVIATIONS, 41)
_ABOVE = np.array([0.5 * math.erfc(d / math.sqrt(2)) for d in _DISTANCES])


@dataclass(frozen=True)
class ObjectiveSettings:
    """Settings of Eq. 17."""

    horizon: int = 10
    """N, minutes."""
    alpha: float = 0.4
    """α, weight of a minute relative to the one before."""
    beta: float = 8.0
    """β, weight of the damping term."""
    damping: Literal["predicted", "measured", "none"] = "predicted"
    """Where the damping term applies. ``predicted``: in each minute whose predicted load reaches the threshold;
    ``measured``: in the whole horizon if the load of the last minute reached it; ``none``: nowhere."""
    threshold: float = 1.0
    """Load, as a fraction of the budget, at which damping starts. It is 1 in the paper; the reference code has a
    critical threshold below the budget, 44/46."""
    load_error: float = 0.0
    """Standard deviation of a predicted load, as a fraction of the budget, that plans allow for below the threshold. A
    plan keeps the distance that minimises the expected Eq. 17, at most ``MAX_DEVIATIONS`` standard deviations. 0: plans
    may lie on the threshold, where a slightly higher load than predicted is damped. Not used in mode ``real_time``."""
    peak_slots: tuple[tuple[int, int], ...] = ()
    """Peak slots as (first minute, last minute) of the day, both included; a slot may pass midnight."""
    peak_emphasis: float = 2.0
    """Factor of the damping weight in a peak slot; 2 in the reference code."""
    margin: float = 0.0
    """Distance of the target load below the budget, as a fraction of the budget."""
    proximity: float = 1e-4
    """ρ, weight of the squared distance from the nominal prices. It decides prices that do not affect J."""

    def __post_init__(self) -> None:
        if self.damping not in DAMPING:
            raise InputError(unknown_option("damping", self.damping, DAMPING))
        check_fields(
            self,
            {
                "horizon": whole_number(1, unit="minutes"),
                "alpha": FRACTION_ABOVE_ZERO,
                "beta": FINITE_NOT_NEGATIVE,
                "margin": MARGIN,
                "threshold": FINITE_POSITIVE,
                "load_error": FINITE_NOT_NEGATIVE,
                "proximity": at_least(0),
                "peak_emphasis": FINITE_POSITIVE,
            },
        )
        slots = self.peak_slots
        for slot in slots if isinstance(slots, Sequence) and not isinstance(slots, str) else (slots,):
            if not (isinstance(slot, Sequence) and len(slot) == 2 and all(map(_MINUTE.holds, slot))):
                raise InputError(f"peak_slots holds {slot!r}; give pairs (first, last) of minutes in 0 to 1439")

    def emphasis(self, minutes: np.ndarray) -> np.ndarray:
        """Return the factor of the damping weight (N,) at ``minutes`` (N,) of the day."""
        minutes = np.asarray(minutes)
        in_peak = np.zeros(minutes.shape, dtype=bool)
        for first, last in self.peak_slots:
            in_slot = (minutes >= first) & (minutes <= last)
            in_peak |= in_slot if first <= last else (minutes >= first) | (minutes <= last)
        return np.where(in_peak, self.peak_emphasis, 1.0)


def read_peak_slots(text: str) -> tuple[tuple[int, int], ...]:
    """Read ``11:00-13:00+19:30-22:00`` as ``peak_slots``; ``none`` is no slot.

    Raises:
        InputError: not of that form.
    """
    if text.strip().lower() == "none":
        return ()
    slots = []
    for word in text.split("+"):
        match = _SLOT.fullmatch(word.strip())
        hours, minutes = ([int(x) for x in match.group(*pair)] if match else [99] for pair in ((1, 3), (2, 4)))
        if match is None or max(hours) > 23 or max(minutes) > 59:
            raise InputError(f"peak_slots {text!r}: write HH:MM-HH:MM, several joined by +, or none")
        slots.append((60 * hours[0] + minutes[0], 60 * hours[1] + minutes[1]))
    return tuple(slots)


_SLOT = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")


class PlanStart(NamedTuple):
    """The state from which a plan starts, and the load it aims at."""

    in_force: np.ndarray
    """(G,) log prices of the last minute."""
    load: np.ndarray
    """(G,) load of the last minute, as a fraction of the budget."""
    target: np.ndarray
    """(G,) or (N,G) load to aim at, as a fraction of the budget."""
    emphasis: Any = 1.0
    """(N,) factor of the damping weight in each minute, or a number."""


class Objective:
    """The objective J of Eq. 17 on any load sequence.

    Args:
        settings: the settings of Eq. 17.
    """

    def __init__(self, settings: ObjectiveSettings | None = None) -> None:
        self.settings = settings or ObjectiveSettings()
        self.weights = self.settings.alpha ** np.arange(self.settings.horizon)  # (N,), α^i
        self._edge: tuple[bytes, np.ndarray] = b"", np.empty(0)

    def damped(self, loads: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return where the damping term applies, (…,N,G) bool.

        Args:
            loads: (…,N,G) as fractions of the budgets.
            last: (G,) load of the minute before.
        """
        s = self.settings
        if s.damping == "none":
            return np.zeros(loads.shape, dtype=bool)
        if s.damping == "measured":
            return np.broadcast_to(last >= s.threshold, loads.shape)
        return loads >= self.edge(last) * (1 + 1e-6)  # a load kept exactly at the threshold does not count

    def edge(self, last: np.ndarray) -> np.ndarray:
        """Return the predicted load (G,) from which a plan counts as damped: the threshold, less a safe distance.

        The distance d minimises Σ α^i (aim − threshold + d)² + β (last − threshold)² P(error > d): what it costs to
        stay that far below the budget, and what it would cost to cross the threshold after all.

        Args:
            last: (G,) load of the minute before, as a fraction of the budget.
        """
        s, last = self.settings, np.asarray(last, dtype=np.float64)
        if s.load_error == 0:
            return np.full(last.shape, s.threshold)
        key, edge = self._edge  # a plan asks many times for the same load
        if key == last.tobytes():
            return edge
        distances = s.load_error * _DISTANCES
        below = np.maximum(1 - s.margin - s.threshold + distances, 0.0)
        risk = s.beta * (last[..., None] - s.threshold) ** 2 * _ABOVE
        edge = s.threshold - distances[(self.weights.sum() * below**2 + risk).argmin(-1)]
        self._edge = last.tobytes(), edge
        return edge

    def damping_weights(self, damped: np.ndarray, emphasis: Any = 1.0) -> np.ndarray:
        """Return β α^i e_i where ``damped`` (…,N,G), 0 elsewhere."""
        return (self.settings.beta * self.weights * emphasis)[:, None] * damped

    def __call__(
        self, loads: np.ndarray, last: np.ndarray, target: np.ndarray | None = None, emphasis: Any = 1.0
    ) -> np.ndarray:
        """Return J (…), in units of budgets squared.

        Args:
            loads: (…,N,G) as fractions of the budgets.
            last: (G,) load of the minute before.
            target: (G,) or (N,G) loads to aim at; ``None``: 1 less the margin.
            emphasis: (N,) factor of the damping weight, or a number.
        """
        return self.with_damping(loads, last, self.damped(loads, last), target, emphasis)

    def with_damping(
        self,
        loads: np.ndarray,
        last: np.ndarray,
        damped: np.ndarray,
        target: np.ndarray | None = None,
        emphasis: Any = 1.0,
    ) -> np.ndarray:
        """Return J (…) with the damping term where ``damped`` (…,N,G) is set; it is convex in the loads.

        Args:
            loads: (…,N,G) as fractions of the budgets.
            last: (G,) load of the minute before.
            damped: (…,N,G) bool.
            target: (G,) or (N,G) loads to aim at; ``None``: 1 less the margin.
            emphasis: (N,) factor of the damping weight, or a number.
        """
        aim = 1 - self.settings.margin if target is None else target
        terms = self.weights[:, None] * (loads - aim) ** 2
        if damped.any():
            steps = loads - self._previous(loads, last)
            terms = terms + self.damping_weights(damped, emphasis) * steps**2
        return terms.sum((-2, -1))

    def gradient(
        self, loads: np.ndarray, last: np.ndarray, target: np.ndarray | None = None, emphasis: Any = 1.0
    ) -> np.ndarray:
        """Return the derivative of J with respect to ``loads``, (…,N,G); the set of damped minutes is taken as fixed.

        Args:
            loads: (…,N,G) as fractions of the budgets.
            last: (G,) load of the minute before.
            target: (G,) or (N,G) loads to aim at; ``None``: 1 less the margin.
            emphasis: (N,) factor of the damping weight, or a number.
        """
        aim = 1 - self.settings.margin if target is None else target
        pull = 2 * self.damping_weights(self.damped(loads, last), emphasis) * (loads - self._previous(loads, last))
        slope = 2 * self.weights[:, None] * (loads - aim) + pull
        slope[..., :-1, :] -= pull[..., 1:, :]
        return slope

    @staticmethod
    def _previous(loads: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return the load of the minute before each minute, (…,N,G)."""
        return np.concatenate([np.broadcast_to(last, loads[..., :1, :].shape), loads[..., :-1, :]], axis=-2)
