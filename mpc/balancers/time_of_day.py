"""Cross-entropy search for a price per slice of the day on replayed traffic, in the style of ES-MACA.

Nothing is looked up while serving but the time of day: all the work is done beforehand, on the traffic of a past day
and a sample of requests. Slices do not influence each other; each search starts from the prices of the one before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marca_env.traffic.allocation import allocate
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY
from mpc.balancers.base import PRICE_MAX, bounded, check_price_max
from mpc.balancers.bisection import RequestTable, price_scale, split_tables

if TYPE_CHECKING:
    from marca_env.traffic.clusters import ControlObservation


class SliceBalancer:
    """A fixed price for each slice of the day.

    Args:
        prices: (S,G) currency per core-second; slice s is minutes s·1440/S up to (s + 1)·1440/S.

    Raises:
        InputError: prices that are negative or not finite, or more slices than minutes.
    """

    def __init__(self, prices: Any) -> None:
        self.prices = np.asarray(prices, dtype=np.float64)
        shaped = self.prices.ndim == 2 and 1 <= len(self.prices) <= MINUTES_PER_DAY
        if not shaped or not np.all(np.isfinite(self.prices)) or np.any(self.prices < 0):
            raise InputError(f"prices of shape {self.prices.shape}; give (slices, clusters) finite ones, none negative")

    def update(self, observation: ControlObservation) -> np.ndarray:
        try:
            minute = int(observation.minute) % MINUTES_PER_DAY
        except (TypeError, ValueError, OverflowError):
            return bounded(observation.prices, self.prices.max(axis=0))  # an unreadable clock: what is in force
        return self.prices[minute * len(self.prices) // MINUTES_PER_DAY].copy()

    def reset(self) -> None:
        pass

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
        """Find the prices that would have earned most, overload being charged, on a past day's traffic.

        The score of a price in a slice is Σ_minutes qps · revenue − penalty · worth · Σ_g max(0, load_g/budget_g − 1),
        per request of the sample, where worth is what the minute would earn for free.

        Args:
            values: (M,J) predicted currency per request of the sample.
            costs: (M,J,G) predicted core-seconds per request.
            qps: (1440,) requests per second of each minute of a past day.
            budget: (G,) core-seconds per second.
            seed: of the draws.
            slices: S.
            weights: (M,) how often each request comes; ``None``: all alike.
            windows: (M,) part of the day that each request belongs to; ``None``: requests are alike all day.
            n_windows: parts of the day.
            penalty: price of an overload of one budget, in free revenues of the same time.
            samples: prices tried a round.
            elite: share of them that the search follows.
            rounds: most rounds.
            price_max: () or (G,) bound of the prices.

        Raises:
            InputError: shapes that do not fit, or settings out of range.
        """
        qps, budget = np.asarray(qps, dtype=np.float64), np.asarray(budget, dtype=np.float64)
        if qps.shape != (MINUTES_PER_DAY,) or not np.all(np.isfinite(qps)) or np.any(qps < 0):
            raise InputError(f"qps of shape {qps.shape}; give 1440 finite numbers, none negative")
        if not (1 <= slices <= MINUTES_PER_DAY and samples >= 4 and 0 < elite < 1 and rounds >= 1 and penalty > 0):
            raise InputError(
                f"slices {slices} in 1 to 1440, samples {samples} ≥ 4, elite {elite} in (0, 1), rounds {rounds} ≥ 1 "
                f"and penalty {penalty} > 0 are needed"
            )
        tables, count = split_tables(values, costs, weights, windows, n_windows)
        limit = np.broadcast_to(check_price_max(price_max), budget.shape)
        scale, rng = price_scale(values, costs), np.random.default_rng(seed)
        top = np.log1p(limit / scale)
        found: list[np.ndarray] = []
        for s in range(slices):
            minutes = np.arange(-(-s * MINUTES_PER_DAY // slices), -(-(s + 1) * MINUTES_PER_DAY // slices))
            part = _Slice(tables, count, minutes, qps[minutes], budget, penalty)
            # the slice before is a good guess of the first draws: prices follow the traffic
            start = np.ones(len(budget)) if s == 0 else np.log1p(found[-1] / scale)
            spread = 1.0 if s == 0 else 0.6
            best = _cross_entropy(lambda u, part=part: part.score(scale * np.expm1(u)), start, spread, top, rng,
                                  samples=samples, kept=max(2, int(elite * samples)), rounds=rounds)  # fmt: skip
            found.append(scale * np.expm1(best))
        return cls(np.minimum(np.array(found), limit))


class _Slice:
    """Traffic of a slice, by the part of the day whose requests come then."""

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
        total = 0.0
        for table, qps in self.parts:
            chosen = allocate(table.values, table.costs, prices)
            rows = np.arange(len(chosen))
            earned, used = table.weights @ table.values[rows, chosen], table.weights @ table.costs[rows, chosen]
            over = np.maximum(qps[:, None] * used / self.budget - 1.0, 0.0).sum(axis=1)  # (minutes,)
            worth = table.weights @ table.values.max(axis=1)
            total += float((qps * (earned - self.penalty * worth * over)).sum())
        return total


def _cross_entropy(score, start, width, top, rng, *, samples: int, kept: int, rounds: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Log prices (G,) in [0, top] of about the highest score."""
    mean, spread = np.array(start), np.full(len(start), width)
    best, most = mean, score(np.clip(mean, 0.0, top))
    for _ in range(rounds):
        drawn = np.clip(mean + spread * rng.standard_normal((samples, len(mean))), 0.0, top)
        scores = np.array([score(u) for u in drawn])
        order = np.argsort(-scores)[:kept]
        if scores[order[0]] > most:
            best, most = drawn[order[0]], float(scores[order[0]])
        mean, spread = drawn[order].mean(0), drawn[order].std(0)
        if spread.max() < 1e-3:
            break
    return np.clip(best, 0.0, top)
