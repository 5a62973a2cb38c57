"""``marca_env/Balancing-v0`` adapted to policy-gradient methods: prices move by steps, observations are of size one.

The environment's own action is the price itself on a cubic scale: bounded, and over a day it fills its range, but a
policy that explores sets prices that have nothing to do with the minute before. Here an action in [−1, 1] moves the log
price by at most :data:`REACH`, so that exploring is a walk around the price in force, and a price that holds the load
is a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from benchmarks.days.telemetry import shipped_pool
from marca_env.envs.price_env import BalancingEnv
from marca_env.models.request_pool import RequestPool

REACH = 0.5
"""Largest change of a log price u = log(1 + λ/s) in a minute."""
SCALE = 1e-3
"""s, as a share of the highest price."""
LOAD_SPREAD = 0.2
"""Deviation of the load from the budget, as a fraction of it, that is observed as one."""
GROWTH_SPREAD = 0.05
"""Relative change of traffic in a minute that is observed as one."""
LIMIT = 5.0


@cache
def shared_pool(size: int) -> RequestPool:
    """Return requests of the default scenario; drawn once in a process because the fitted models are loaded."""
    return shipped_pool(size)


class PricedDay(gymnasium.Wrapper):
    """Day of :class:`marca_env.envs.price_env.BalancingEnv` with relative actions and scaled observations.

    Action: Box(−1, 1, (G,)). Observation: Box of 4·G + 4 numbers: per cluster load − budget over a fifth of the budget;
    degradation; backlog; log price, from −1 (free) to 1 (the highest); then traffic and its growth, and sine and cosine
    of the time of day.

    Args:
        config: ``pool_size`` (default 60) and arguments of :class:`BalancingEnv`.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        options = dict(config or {})
        pool = options.pop("pool", None) or shared_pool(options.pop("pool_size", 60))
        super().__init__(BalancingEnv(pool=pool, **options))
        self.base: BalancingEnv = self.env  # type: ignore[assignment]
        self._scale = SCALE * self.base.price_max
        self._top = np.log1p(self.base.price_max / self._scale)
        size = len(self._top)
        self.action_space = spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.observation_space = spaces.Box(-LIMIT, LIMIT, (4 * size + 4,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a day at free computation."""
        _, info = self.env.reset(seed=seed, options=options)
        self._log_prices, self._last_qps = np.zeros_like(self._top), self.base.control.qps
        return self._observation(), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the prices and hold them for a control period."""
        move = REACH * np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        self._last_qps = self.base.control.qps
        self._log_prices = np.clip(self._log_prices + move, 0.0, self._top)
        prices = self._scale * np.expm1(self._log_prices)
        _, reward, terminated, truncated, info = self.env.step(self.base.action_of(prices))
        return self._observation(), float(reward), terminated, truncated, info

    def _observation(self) -> np.ndarray:
        control, protection = self.base.control, self.base.scenario.protection
        angle = 2 * np.pi * control.minute / 1440
        growth = control.qps / max(self._last_qps, 1e-9) - 1.0
        parts = [
            (control.load / control.budget - 1.0) / LOAD_SPREAD,
            control.degradation / max(1, len(protection.levels)),
            control.backlog / protection.timeout,
            2.0 * self._log_prices / self._top - 1.0,
            [2.0 * control.qps / self.base.scenario.peak_qps - 1.0, growth / GROWTH_SPREAD, np.sin(angle)],
            [np.cos(angle)],
        ]
        return np.clip(np.concatenate(parts), -LIMIT, LIMIT).astype(np.float32)
