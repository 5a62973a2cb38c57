"""A fixed price per slice of the day, found by cross-entropy search on replayed traffic, in the style of ES-MACA.

The search runs offline, on the traffic of a past day and a sample of requests; online the balancer only looks at the
time of day. Slices do not influence each other, and each search starts from the prices of the slice before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marca_env.traffic.allocation import allocate
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY
from marca_env.utils.validation import as_real_array
from mpc.balancers.base import PRICE_MAX, check_price_max, clip_prices
from mpc.balancers.bisection import RequestTable, price_scale, split_tables
from mpc.planning.cross_entropy import cross_entropy
from mpc.validation import FINITE_POSITIVE, OPEN_FRACTION, at_least, check_values, whole_number

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation


class SliceBalancer:
    """Sets fixed prices for each slice of the day.

    Args:
        prices: (S,G) currency per core-second; slice s is minutes s·1440/S up to (s + 1)·1440/S.

    Raises:
        InputError: prices that are negative or not finite, or more slices than a day has minutes.
    """

    def __init__(self, prices: Any) -> None:
        self.prices = as_real_array("prices", prices, "pass numbers of shape (slices, clusters)")
        has_shape = self.prices.ndim == 2 and 1 <= len(self.prices) <= MINUTES_PER_DAY
        if not has_shape or not np.all(np.isfinite(self.prices)) or np.any(self.prices < 0):
            raise InputError(
                f"prices have shape {self.prices.shape}; pass finite prices of shape (slices, clusters), none negative"
            )

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Return the prices (G,) of the slice; an unreadable minute leaves the prices in force."""
        try:
            minute = int(observation.minute) % MINUTES_PER_DAY
        except (TypeError, ValueError, OverflowError):
            return clip_prices(observation.prices, self.prices.max(axis=0))
        return self.prices[minute * len(self.prices) // MINUTES_PER_DAY].copy()

    def reset(self) -> None:
        """Do nothing: this balancer has no memory."""

    @classmethod
    def search(
        cls,
        values: np.ndarray,
        costs: np.ndarray,
        qps: np.ndarray,
        budget: np.ndarray,
        *,
        seed: int,
        slices: int = 24,
        weights: np.ndarray | None = None,
        windows: np.ndarray | None = None,
        n_windows: int | None = None,
        penalty: float = 10.0,
        samples: int = 32,
        elite: float = 0.2,
        rounds: int = 15,
        price_max: float | np.ndarray = PRICE_MAX,
    ) -> SliceBalancer:
        """Find the prices that would have earned most on a past day's traffic, with overload charged.

        The score of prices in a slice is Σ_minutes qps · revenue − penalty · worth · Σ_g max(0, load_g/budget_g − 1).
        Revenue is per request of the sample; worth is the revenue of the minute if computation were free.

        Args:
            values: (M,J) predicted currency per request of the sample.
            costs: (M,J,G) predicted core-seconds per request.
            qps: (1440,) requests per second of each minute of a past day.
            budget: (G,) core-seconds per second.
            seed: seed of the draws.
            slices: S.
            weights: (M,) relative frequency of each request; ``None``: all equal.
            windows: (M,) window of the day of each request; ``None``: requests are the same all day.
            n_windows: number of windows of a day.
            penalty: charge for an overload of one budget, as a multiple of worth.
            samples: number of prices drawn in a round.
            elite: fraction of the draws that the search follows.
            rounds: largest number of rounds.
            price_max: () or (G,) upper bound of the prices, currency per core-second.

        Raises:
            InputError: shapes that do not match, or settings out of range.
        """
        qps, budget = np.asarray(qps, dtype=np.float64), np.asarray(budget, dtype=np.float64)
        if qps.shape != (MINUTES_PER_DAY,) or not np.all(np.isfinite(qps)) or np.any(qps < 0):
            raise InputError(f"qps has shape {qps.shape}; pass 1440 finite numbers, none negative")
        check_values(
            {"slices": slices, "samples": samples, "elite": elite, "rounds": rounds, "penalty": penalty},
            {
                "slices": whole_number(1, MINUTES_PER_DAY),
                "samples": at_least(4),
                "elite": OPEN_FRACTION,
                "rounds": at_least(1),
                "penalty": FINITE_POSITIVE,
            },
        )
        tables, count = split_tables(values, costs, weights, windows, n_windows)
        limit = np.broadcast_to(check_price_max(price_max), budget.shape)
        scale, rng = price_scale(values, costs), np.random.default_rng(seed)
        top = np.log1p(limit / scale)
        prices: list[np.ndarray] = []
        for s in range(slices):
            minutes = np.arange(-(-s * MINUTES_PER_DAY // slices), -(-(s + 1) * MINUTES_PER_DAY // slices))
            traffic = _SliceTraffic(tables, count, minutes, qps[minutes], budget, penalty)

            def losses(log_prices: np.ndarray, traffic: _SliceTraffic = traffic) -> np.ndarray:
                return np.array([-traffic.score(scale * np.expm1(np.clip(u, 0.0, top))) for u in log_prices])

            best, _, _ = cross_entropy(
                losses,
                # prices follow the traffic, so those of the slice before are a good first guess
                np.ones(len(budget)) if s == 0 else np.log1p(prices[-1] / scale),
                1.0 if s == 0 else 0.6,
                rng,
                project=lambda log_prices: np.clip(log_prices, 0.0, top),
                samples=samples,
                elite=max(2, int(elite * samples)),
                rounds=rounds,
            )
            prices.append(scale * np.expm1(np.clip(best, 0.0, top)))
        return cls(np.minimum(np.array(prices), limit))


class _SliceTraffic:
    """Traffic of a slice, split by the windows whose requests arrive in it."""

    def __init__(
        self,
        tables: list[RequestTable],
        n_windows: int,
        minutes: np.ndarray,
        qps: np.ndarray,
        budget: np.ndarray,
        penalty: float,
    ) -> None:
        window = minutes * n_windows // MINUTES_PER_DAY
        self.parts = [(tables[w], qps[window == w]) for w in np.unique(window)]
        self.budget, self.penalty = budget, penalty

    def score(self, prices: np.ndarray) -> float:
        """Return the revenue of the slice under prices (G,), less the charge for overload."""
        total = 0.0
        for table, qps in self.parts:
            actions = allocate(table.values, table.costs, prices)
            rows = np.arange(len(actions))
            revenue, cost = table.weights @ table.values[rows, actions], table.weights @ table.costs[rows, actions]
            overload = np.maximum(qps[:, None] * cost / self.budget - 1.0, 0.0).sum(axis=1)  # (minutes,)
            worth = table.weights @ table.values.max(axis=1)
            total += float((qps * (revenue - self.penalty * worth * overload)).sum())
        return total
