"""Running statistics of rewards, and the scale and shift with which a team learns from them.

A network starts with values of the size of one. If rewards are much smaller, what an action is worth drowns in these
initial values; if they are much larger, the first gradients are as large. Rewards are therefore divided by the running
standard deviation of the *step's* reward. The standard deviation of episode returns is no good unit: where returns sum
many steps it is many times as large, and differences between actions disappear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

NORMALIZATIONS = ("step", "step_mean", "return", "none")
"""Units of learning: the running standard deviation of the step's reward (``step``), the same after subtracting the
running mean (``step_mean``), the running standard deviation of the episode's return (``return``), or currency."""


@dataclass
class Moments:
    """Running count, mean and sum of squared deviations (Chan et al., 1979), in double precision."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, values: np.ndarray) -> None:
        """Add values of any shape."""
        if values.size == 0:
            return
        values = values.astype(np.float64)
        n, mean = float(values.size), float(values.mean())
        self.add(n, mean, float(((values - mean) ** 2).sum()))

    def add(self, n: float, mean: float, squares: float) -> None:
        """Add ``n`` values with this mean and this sum of squared deviations from it."""
        total = self.count + n
        delta = mean - self.mean
        self.mean += delta * n / total
        self.squares += squares + delta**2 * self.count * n / total
        self.count = total

    @property
    def std(self) -> float:
        """Standard deviation of the values so far; 0 without values."""
        return float(np.sqrt(self.squares / self.count)) if self.count else 0.0


@dataclass(frozen=True)
class RewardUnits:
    """How currency becomes the unit of learning: (reward − shift) / scale for each step."""

    scale: Any = 1.0
    """Currency per unit of Q; a number or a scalar tensor, as the others."""
    shift: Any = 0.0
    """Currency subtracted from each step's reward."""
    return_scale: Any = 1.0
    """Standard deviation of the episode's return, currency: the unit of VGCA's variances (Eq. 16)."""


CURRENCY = RewardUnits()
"""Rewards as they are."""


class RewardStatistics:
    """Running statistics of the step's reward and of the episode's return; all rewards in currency."""

    def __init__(self) -> None:
        self.step, self.episode = Moments(), Moments()

    @classmethod
    def of_last_rewards(cls, rewards: np.ndarray, steps: int) -> Self:
        """Return the statistics of M episodes of ``steps`` steps whose whole reward (M,) comes at the last step."""
        statistics = cls()
        statistics.episode.update(rewards)
        statistics.step.update(rewards)
        statistics.step.add(float(rewards.size * (steps - 1)), 0.0, 0.0)
        return statistics

    def update(self, reward: np.ndarray, filled: np.ndarray) -> None:
        """Add episodes: ``reward`` (B, T), ``filled`` (B, T) bool, the steps that belong to the episode."""
        self.step.update(reward[filled])
        self.episode.update(np.where(filled, reward, 0.0).sum(1, dtype=np.float64))

    def units(self, normalization: str, fixed_scale: float | None = None) -> RewardUnits:
        """Return the units of learning; a scale that would be zero is 1.

        Args:
            normalization: one of :data:`NORMALIZATIONS`.
            fixed_scale: currency per unit of Q that replaces the statistics; ``None``: as ``normalization`` says.
        """
        return_scale = self.episode.std or 1.0
        if fixed_scale is not None:
            return RewardUnits(fixed_scale, 0.0, return_scale)
        if normalization == "none":
            return RewardUnits(1.0, 0.0, return_scale)
        scale = return_scale if normalization == "return" else self.step.std or 1.0
        return RewardUnits(scale, self.step.mean if normalization == "step_mean" else 0.0, return_scale)

    def state(self) -> dict[str, Any]:
        """Return the statistics for a checkpoint."""
        return {"step": dict(vars(self.step)), "episode": dict(vars(self.episode))}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the statistics that :meth:`state` returned."""
        self.step, self.episode = Moments(**state["step"]), Moments(**state["episode"])
