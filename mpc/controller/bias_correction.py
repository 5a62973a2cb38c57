"""Online correction of the system model: its level, and its slope near the price in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mpc.balancers.saved_state import to_array, to_lists
from mpc.planning.predicted_loads import TILT_REACH

JUMP_GAIN = 0.7
"""Largest share of a prediction error that is corrected at once; below 1 in case the slopes are wrong as well."""
TILT_LIMIT = 6.0
"""Largest size of the correction of d log c / d log λ."""
FEW_REQUESTS = 30.0
"""In a minute with fewer requests than this the mean cost is mostly chance, so its error counts in proportion."""
OVERSHOOT = 0.1
"""A price change that moved the log cost by this much more than predicted has overshot. The right price then lies
between this one and the one before."""
HALVING = 0.5
"""Share of an overshooting move to which the next move is limited."""
_RELAXATION, _UNLIMITED = 1.2, 2.0  # the limit grows by this factor each minute, until it exceeds this log price
_DRIFT = 0.015  # usual change of the log cost per request in a minute at constant prices
_TILT_DECAY = 0.98  # share of the slope correction that is left a minute later


class BiasCorrection:
    """Integrates prediction errors of the log cost per request into a bias, and price responses into a tilt.

    The load falls in steps where many requests change their action at nearly the same price. A smooth model has too
    flat a slope at such a step, and each of its corrections overshoots. The price in force and the one before give one
    secant of the true curve. An error in the direction of the price change is attributed to the slope, by the size of
    the change relative to the usual drift of costs.

    Changes beyond the reach of a slope can end in a limit cycle: from the flat foot of a step the model moves the
    price over the edge, and back. After a large change that did far more than predicted, the next changes are therefore
    limited to half of it, as in a bisection.

    Args:
        n_clusters: G.
        bias_gain: share of an error that is added to the bias.
        bias_jump: an error of more than this over √(requests of the minute) is mostly corrected at once.
        tilt_gain: share of the secant's slope that is added to the tilt, in [0, 1]; 0: the model's slopes are kept.

    Attributes:
        bias: (G,) correction of the log cost per request.
        tilt: (G,) correction of its slope in the cluster's own log price, never positive, because only a slope that is
            too flat is dangerous.
        move_limit: (G,) largest next change of a log price; infinite unless a recent change overshot.
    """

    def __init__(self, n_clusters: int, bias_gain: float, bias_jump: float, tilt_gain: float) -> None:
        self.n_clusters, self.bias_gain, self.bias_jump, self.tilt_gain = n_clusters, bias_gain, bias_jump, tilt_gain
        self.reset()

    def reset(self) -> None:
        """Forget all corrections."""
        self.bias = np.zeros(self.n_clusters)
        self.tilt = np.zeros(self.n_clusters)
        self.lift_limit()
        self._error = np.zeros(self.n_clusters)

    def state_dict(self) -> dict[str, Any]:
        """Return the corrections as values of JSON."""
        names = ("bias", "tilt", "move_limit")
        return {name: to_lists(getattr(self, name)) for name in names} | {"error": to_lists(self._error)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InputError: a damaged state, or one of another number of clusters.
        """
        shape = (self.n_clusters,)
        bias, tilt, error = (to_array(state, name, shape) for name in ("bias", "tilt", "error"))
        self.move_limit = to_array(state, "move_limit", shape, np.inf)
        self.bias, self.tilt, self._error = bias, tilt, error

    def lift_limit(self) -> None:
        """Lift the limit of the next change, after a minute whose prediction cannot be checked."""
        self.move_limit = np.full(self.n_clusters, np.inf)

    def update(self, log_cost: np.ndarray, expected: np.ndarray, moved: np.ndarray, requests: float) -> None:
        """Update the corrections after a minute.

        Args:
            log_cost: (G,) measured log cost per request.
            expected: (G,) predicted log cost at the prices in force, with the corrections so far.
            moved: (G,) change of the log prices from the minute before.
            requests: number of requests of the minute.
        """
        error = np.clip(log_cost - expected, -1.0, 1.0) * min(1.0, requests / FEW_REQUESTS)
        overshot = (error * moved < 0) & (np.abs(error) > OVERSHOOT) & (np.abs(moved) > TILT_REACH)
        relaxed = np.where(_RELAXATION * self.move_limit < _UNLIMITED, _RELAXATION * self.move_limit, np.inf)
        halved = np.maximum(HALVING * np.abs(moved), TILT_REACH)
        self.move_limit = np.where(overshot & (self.tilt_gain > 0), halved, relaxed)
        noise = self.bias_jump / np.sqrt(max(requests, 1.0))
        error = error - self._update_tilt(error, moved, noise / self.bias_jump)
        # An error far above the sampling noise is an error of the model: most of it is corrected at once, unless the
        # errors alternate in sign. Then the corrections themselves overshoot.
        significance = _significance(error, noise)
        same_sign = error * self._error >= 0
        gain = np.maximum(self.bias_gain, JUMP_GAIN * significance * same_sign) if self.bias_gain > 0 else 0.0
        self._error = error
        self.bias = np.clip(self.bias + gain * error, -2.0, 2.0)

    def begin_window(self, expected: np.ndarray, measured: np.ndarray, requests: float) -> None:
        """Set the bias after the first minute of a time window with another mix of requests.

        The error of this minute is neither that of a slope nor that of a price change that overshot.

        Args:
            expected: (G,) bias of the window before this minute; NaN: not known.
            measured: (G,) bias by which the model would have been right.
            requests: number of requests of the minute.
        """
        self.lift_limit()
        self.tilt = np.zeros(self.n_clusters)  # the slopes of another mix of requests are others
        self._error = np.zeros(self.n_clusters)
        if self.bias_gain == 0:
            return
        expected = np.where(np.isfinite(expected), expected, self.bias)
        error = np.clip(measured - expected, -1.0, 1.0)
        significance = _significance(error, self.bias_jump / np.sqrt(max(requests, 1.0)))
        self.bias = np.clip(expected + np.maximum(self.bias_gain, significance) * error, -2.0, 2.0)

    def limit_move(self, log_prices: np.ndarray, in_force: np.ndarray) -> np.ndarray:
        """Return log prices (G,) no further from those in force (G,) than ``move_limit``."""
        return np.clip(log_prices, in_force - self.move_limit, in_force + self.move_limit)

    def _update_tilt(self, error: np.ndarray, moved: np.ndarray, noise: float) -> np.ndarray:
        """Update the tilt and return the part of the error (G,) that it explains."""
        if self.tilt_gain == 0:
            return np.zeros_like(error)
        reach = TILT_REACH * np.tanh(moved / TILT_REACH)
        share = self.tilt_gain * reach**2 / (reach**2 + _DRIFT**2 + noise**2)
        proposed = self.tilt + share * error / np.where(np.abs(reach) > 1e-9, reach, np.inf)
        tilt = np.clip(proposed, -TILT_LIMIT, 0.0)
        explained = (tilt - self.tilt) * reach
        self.tilt = _TILT_DECAY * tilt
        return explained


def _significance(error: np.ndarray, noise: float) -> np.ndarray:
    """Return how far an error (G,) stands out of the noise, from 0 to 1."""
    return 1.0 - np.minimum(noise / np.maximum(np.abs(error), 1e-12), 1.0) ** 2
