"""What the system model gets wrong lately: its level, and its slope near the price in force."""

from __future__ import annotations

import numpy as np

from mpc.planning.predicted_loads import TILT_REACH

BIAS_CAP = 0.7  # of a prediction error that is believed at once; below 1 in case the slopes are wrong as well
TILT_LIMIT = 6.0  # d log c / d log λ that no cluster exceeds
OVERSHOT = 0.1  # of the log cost: a price that moved it by so much more than was predicted has gone too far, and what
BACK = 0.5  # is sought lies between it and the price before: the next move is half as large at most,
_RELAX, _FREE = 1.2, 2.0  # and this much larger each minute after, until it is as large as any
_DRIFT = 0.015  # how far the cost per request moves in a minute of itself
_FORGET = 0.98  # of a slope's correction that is left a minute later


class Correction:
    """Integrates prediction errors of the log cost per request into a bias, and steps of it into a slope.

    The load falls in steps where many requests change their action at nearly the same price; a smooth model that
    passes through the middle of a step has too flat a slope there, and each of its corrections overshoots. What the
    price in force and the one before brought, one secant, tells the slope: an error in the direction of the price's
    move counts for the slope as far as the move is larger than what costs do of themselves.

    Moves larger than the reach of a slope can run into a limit cycle: from the flat foot of a step the smooth model
    sends the price over the edge, and back. After a large move that did far more than predicted the next ones are
    therefore bounded by half of it, as in a bisection.

    Args:
        n_clusters: G.
        bias_gain: share of an error that is taken into the bias.
        bias_jump: an error of more than this over √(requests of the minute) is mostly believed at once.
        tilt_gain: share of what a secant says that is believed, in [0, 1]; 0: the model's slopes are kept.

    Attributes:
        bias: (G,) correction of the log cost per request.
        tilt: (G,) correction of its slope in the own log price, never positive: only a slope that is too flat is
            dangerous.
        largest: (G,) largest next move of a log price; infinite unless one overshot lately.
    """

    def __init__(self, n_clusters: int, bias_gain: float, bias_jump: float, tilt_gain: float) -> None:
        self.n_clusters, self.bias_gain, self.bias_jump, self.tilt_gain = n_clusters, bias_gain, bias_jump, tilt_gain
        self.reset()

    def reset(self) -> None:
        self.bias = np.zeros(self.n_clusters)
        self.tilt = np.zeros(self.n_clusters)
        self.unchecked()
        self._error = np.zeros(self.n_clusters)

    def unchecked(self) -> None:
        """The last prediction cannot be compared with what came."""
        self.largest = np.full(self.n_clusters, np.inf)

    def update(self, log_cost: np.ndarray, expected: np.ndarray, moved: np.ndarray, requests: float) -> None:
        """Take in a minute.

        Args:
            log_cost: (G,) measured log cost per request.
            expected: (G,) what was predicted for the prices in force, corrections included.
            moved: (G,) change of the log prices from the minute before.
            requests: of the minute.
        """
        error = np.clip(log_cost - expected, -1.0, 1.0)
        overshot = (error * moved < 0) & (np.abs(error) > OVERSHOT) & (np.abs(moved) > TILT_REACH)
        relaxed = np.where(_RELAX * self.largest < _FREE, _RELAX * self.largest, np.inf)
        halved = np.maximum(BACK * np.abs(moved), TILT_REACH)
        self.largest = np.where(overshot & (self.tilt_gain > 0), halved, relaxed)
        noise = self.bias_jump / np.sqrt(max(requests, 1.0))
        error = error - self._turned(error, moved, noise / self.bias_jump)
        # An error far beyond the sampling noise is the model's: most of it is believed at once, unless errors
        # alternate, which says that the corrections themselves overshoot.
        beyond = 1.0 - np.minimum(noise / np.maximum(np.abs(error), 1e-12), 1.0) ** 2
        steady = error * self._error >= 0
        gain = np.maximum(self.bias_gain, BIAS_CAP * beyond * steady) if self.bias_gain > 0 else 0.0
        self._error = error
        self.bias = np.clip(self.bias + gain * error, -2.0, 2.0)

    def bounded(self, log_prices: np.ndarray, in_force: np.ndarray) -> np.ndarray:
        """Log prices (G,) to set, no further from those in force (G,) than :attr:`largest` allows."""
        return np.clip(log_prices, in_force - self.largest, in_force + self.largest)

    def _turned(self, error: np.ndarray, moved: np.ndarray, noise: float) -> np.ndarray:
        """Move the tilt; returns the part of the error (G,) that this explains."""
        if self.tilt_gain == 0:
            return np.zeros_like(error)
        reach = TILT_REACH * np.tanh(moved / TILT_REACH)
        share = self.tilt_gain * reach**2 / (reach**2 + _DRIFT**2 + noise**2)
        wished = self.tilt + share * error / np.where(np.abs(reach) > 1e-9, reach, np.inf)
        turned = np.clip(wished, -TILT_LIMIT, 0.0)
        explained = (turned - self.tilt) * reach
        self.tilt = _FORGET * turned
        return explained
