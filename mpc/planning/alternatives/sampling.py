"""Plans by drawing price sequences: random shooting, as in the reference code, and the cross-entropy method."""

from __future__ import annotations

import numpy as np

from marca_env.utils.errors import InputError
from mpc.planning.alternatives.search_method import SearchMethod
from mpc.planning.cross_entropy import cross_entropy
from mpc.planning.deadline import Deadline
from mpc.planning.objective import Now
from mpc.planning.predicted_loads import PredictedLoads
from mpc.planning.scp import PlannerSettings


class RandomShooting(SearchMethod):
    """The best of random sequences and the nominal one.

    Args:
        samples: sequences that are drawn, the nominal one apart; 100 in the reference code.
        spread: standard deviation of a log price around the nominal one; ``None``: prices uniform over [0, λ_max], the
            way of the reference code.
        batched: evaluate all at once; ``False``: one after the other, as the reference code does.
        seed: of the draws.
    """

    def __init__(
        self,
        n_clusters: int,
        settings: PlannerSettings,
        top: np.ndarray,
        *,
        samples: int = 100,
        spread: float | None = 0.3,
        batched: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(n_clusters, settings, top)
        if samples < 1 or (spread is not None and not spread > 0):
            raise InputError(f"shooting: samples is {samples} and spread {spread}; both must be positive")
        self.samples, self.spread, self.batched = samples, spread, batched
        self._rng = np.random.default_rng(seed)

    def _search(
        self, predicted: PredictedLoads, now: Now, start: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        shape = (self.samples, *self.shape)
        if self.spread is None:  # uniform in λ: u = log(1 + λ/s)
            drawn = np.log1p(self._rng.random(shape) * np.expm1(self.top))
        else:
            drawn = start + self.spread * self._rng.standard_normal(shape)
        tried = np.concatenate([start[None], self._allowed(drawn, now)])
        if self.batched:
            values = self._values(predicted, now, tried)
        else:
            values = np.full(len(tried), np.inf)
            for k, sequence in enumerate(tried):
                if clock.passed:
                    break
                values[k] = self._values(predicted, now, sequence)
        return tried[int(values.argmin())], self.samples, False


class CrossEntropy(SearchMethod):
    """The cross-entropy method: draw around a mean, move mean and spread to the best draws, repeat.

    Args:
        samples: sequences a round.
        elite: share of them that mean and spread follow.
        rounds: most rounds.
        spread: standard deviation of the first round's log prices.
        seed: of the draws.
    """

    def __init__(
        self,
        n_clusters: int,
        settings: PlannerSettings,
        top: np.ndarray,
        *,
        samples: int = 64,
        elite: float = 0.15,
        rounds: int = 20,
        spread: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__(n_clusters, settings, top)
        if samples < 4 or not 0 < elite < 1 or rounds < 1 or not spread > 0:
            raise InputError(f"cem: samples {samples} ≥ 4, elite {elite} in (0, 1), rounds {rounds} ≥ 1, spread > 0")
        self.samples, self.rounds, self.spread = samples, rounds, spread
        self.elite = max(2, int(samples * elite))
        self._rng = np.random.default_rng(seed)

    def _search(
        self, predicted: PredictedLoads, now: Now, start: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        return cross_entropy(
            lambda log_prices: self._values(predicted, now, log_prices),
            start,
            self.spread,
            self._rng,
            project=lambda log_prices: self._allowed(log_prices, now),
            samples=self.samples,
            elite=self.elite,
            rounds=self.rounds,
            least_spread=1e-6,
            out_of_time=lambda: clock.passed,
        )
