"""Planning by random price sequences: random shooting, as in the reference code, and the cross-entropy method."""

from __future__ import annotations

import numpy as np

from mpc.planning.alternatives.search_method import SearchMethod
from mpc.planning.cross_entropy import cross_entropy
from mpc.planning.deadline import Deadline
from mpc.planning.objective import PlanStart
from mpc.planning.planning_method import PlannerSettings
from mpc.planning.predicted_loads import PredictedLoads
from mpc.validation import FINITE_POSITIVE, OPEN_FRACTION, at_least, check_values


class RandomShooting(SearchMethod):
    """Random shooting: the best of random sequences and the nominal one.

    Args:
        n_clusters: G.
        settings: settings of the objective.
        top: (G,) greatest log prices.
        samples: number of random sequences; 100 in the reference code.
        spread: standard deviation of a log price around the nominal one; ``None``: prices uniform over [0, λ_max], as
            in the reference code.
        batched: evaluate all sequences at once; ``False``: one after the other, as in the reference code.
        seed: seed of the draws.

    Raises:
        InputError: a setting out of range.
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
        rules = {"samples": at_least(1)} if spread is None else {"samples": at_least(1), "spread": FINITE_POSITIVE}
        check_values({"samples": samples, "spread": spread}, rules, prefix="shooting: ")
        self.samples, self.spread, self.batched = samples, spread, batched
        self._rng = np.random.default_rng(seed)

    def _search(
        self, predicted: PredictedLoads, start: PlanStart, nominal: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        shape = (self.samples, *self.shape)
        if self.spread is None:  # uniform in λ: u = log(1 + λ/s)
            drawn = np.log1p(self._rng.random(shape) * np.expm1(self.top))
        else:
            drawn = nominal + self.spread * self._rng.standard_normal(shape)
        sequences = np.concatenate([nominal[None], self._project(drawn, start)])
        if self.batched:
            values = self._values(predicted, start, sequences)
        else:
            values = np.full(len(sequences), np.inf)
            for k, sequence in enumerate(sequences):
                if clock.passed:
                    break
                values[k] = self._values(predicted, start, sequence)
        return sequences[int(values.argmin())], self.samples, False


class CrossEntropy(SearchMethod):
    """The cross-entropy method: draw around a mean, move mean and spread to the best draws, repeat.

    Args:
        n_clusters: G.
        settings: settings of the objective.
        top: (G,) greatest log prices.
        samples: number of sequences drawn in a round.
        elite: share of them that mean and spread follow.
        rounds: largest number of rounds.
        spread: standard deviation of the log prices of the first round.
        seed: seed of the draws.

    Raises:
        InputError: a setting out of range.
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
        check_values(
            {"samples": samples, "elite": elite, "rounds": rounds, "spread": spread},
            {"samples": at_least(4), "elite": OPEN_FRACTION, "rounds": at_least(1), "spread": FINITE_POSITIVE},
            prefix="cem: ",
        )
        self.samples, self.rounds, self.spread = samples, rounds, spread
        self.elite = max(2, int(samples * elite))
        self._rng = np.random.default_rng(seed)

    def _search(
        self, predicted: PredictedLoads, start: PlanStart, nominal: np.ndarray, clock: Deadline
    ) -> tuple[np.ndarray, int, bool]:
        return cross_entropy(
            lambda log_prices: self._values(predicted, start, log_prices),
            nominal,
            self.spread,
            self._rng,
            project=lambda log_prices: self._project(log_prices, start),
            samples=self.samples,
            elite=self.elite,
            rounds=self.rounds,
            least_spread=1e-6,
            out_of_time=lambda: clock.passed,
        )
