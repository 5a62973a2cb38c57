"""The valleys of Eq. 17 (arXiv 2512.24325): which minutes to keep below the threshold of damping, and where to start.

The damping term starts at a threshold, so Eq. 17 jumps there, and a descent stays on the side on which it begins. Two
searches without derivatives choose the side:

- Each price acts on the load of its own minute, mostly on its own cluster. So the loads themselves are nearly free
  within the reach of the prices, and the best sequence of loads follows by dynamic programming, cluster by cluster.
- Where prices at their bounds couple the clusters, the best of a fixed sample of price sequences is another start.
"""

from __future__ import annotations

import numpy as np

from mpc.planning.objective import Objective, PlanStart
from mpc.planning.predicted_loads import PredictedLoads

GRID, FINE_GRID = 32, 16
"""Loads per cluster that the dynamic program chooses from: over the whole range, and between threshold and target."""
JUST_BELOW = 1e-5
"""Distance below the threshold at which a planned load counts as undamped, as a share of the threshold."""
SAMPLES = 192
"""Price sequences of the sample."""
_NEAR = 1.0  # half of the sample lies within this log price of the nominal one
_DIFFERENT = 0.1  # starts whose log prices differ by less lead to the same valley


def reachable_loads(
    predicted: PredictedLoads, nominal: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and greatest load (N,G) of each cluster between two own prices, the others' as in ``nominal``.

    Args:
        predicted: loads as a function of log prices.
        nominal: (N,G) log prices.
        low: (N,G) least log prices.
        high: (N,G) greatest log prices.
    """
    own = np.arange(nominal.shape[1])
    ends = np.repeat(nominal[None], 2 * len(own), axis=0)  # (2G,N,G)
    ends[own, :, own], ends[len(own) + own, :, own] = low.T, high.T
    loads = predicted.loads(ends)
    dearest, cheapest = loads[len(own) + own, :, own].T, loads[own, :, own].T
    return np.minimum(dearest, cheapest), np.maximum(dearest, cheapest)


def best_load_sequence(
    objective: Objective, start: PlanStart, least: np.ndarray, most: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the loads (N,G) that minimise Eq. 17 on a grid, and their J, if clusters could be loaded independently.

    Args:
        objective: Eq. 17.
        start: the state from which the plan starts, and its target.
        least: (N,G) least loads within reach.
        most: (N,G) greatest loads within reach.
    """
    (n, size), weights = least.shape, objective.weights
    target = np.broadcast_to(start.target, (n, size))
    edge = objective.edge(start.load) * (1 - JUST_BELOW)  # (G,)
    special = np.stack([edge, start.load, target[0], target[-1]])  # (4,G)
    low, high = special.min(0), special.max(0)
    pad = 0.25 * (high - low) + 0.01
    fine = np.linspace(np.minimum(edge, target[0]), np.maximum(edge, target[0]), FINE_GRID)
    grid = np.sort(np.concatenate([np.linspace(low - pad, high + pad, GRID), fine, special]), axis=0)  # (K,G)
    values = np.clip(grid[None], least[:, None], most[:, None]).swapaxes(1, 2)  # (N,G,K)
    tracking = weights[:, None, None] * (values - target[..., None]) ** 2
    damping = objective.damping_weights(np.ones((n, size)), start.emphasis)[..., None] * objective.damped(
        values.swapaxes(1, 2), start.load
    ).swapaxes(1, 2)  # (N,G,K)
    ahead = np.zeros_like(tracking[0])  # (G,K), J of the minutes after this load
    choices = np.empty((n, size, grid.shape[0]), dtype=np.int64)  # best load of minute i after load k of minute i − 1
    for i in range(n - 1, -1, -1):
        before = values[i - 1] if i else start.load[:, None]  # (G,K) or (G,1)
        steps = (values[i][:, None, :] - before[:, :, None]) ** 2  # (G,K before,K)
        total = steps * damping[i][:, None] + (tracking[i] + ahead)[:, None]
        best = total.argmin(-1)
        choices[i, :, : best.shape[1]] = best
        ahead = np.take_along_axis(total, best[..., None], -1)[..., 0]
    loads, index, clusters = np.empty((n, size)), np.zeros(size, dtype=np.int64), np.arange(size)
    for i in range(n):
        index = choices[i, clusters, index]
        loads[i] = values[i, clusters, index]
    return loads, float(ahead[:, 0].sum())


class SampledStarts:
    """A fixed sample of price sequences, and the best of them as starts.

    The sequences are straight lines over the horizon. Half of them are anywhere within the bounds, half are near a
    nominal sequence. The sample is drawn once, so that plans do not depend on the plans before.

    Args:
        shape: (N, G) of a price sequence.
        top: (G,) greatest log prices.
        samples: number of sequences.
    """

    def __init__(self, shape: tuple[int, int], top: np.ndarray, samples: int = SAMPLES) -> None:
        rng, half = np.random.default_rng(0), samples // 2
        along = np.linspace(0.0, 1.0, shape[0])[:, None]  # (N,1)
        ends = rng.random((2, samples, 1, shape[1]))
        ends[1, ::2] = ends[0, ::2]  # every other line is level
        lines = ends[0] + along * (ends[1] - ends[0])  # (S,N,G) in [0, 1]
        self.top = top
        self._anywhere, self._moves = lines[:half] * top, _NEAR * (2.0 * lines[half:] - 1.0)

    def best(
        self, objective: Objective, predicted: PredictedLoads, start: PlanStart, nominal: np.ndarray, number: int
    ) -> list[np.ndarray]:
        """Return up to ``number`` sequences (N,G) of the sample with the least J that differ from each other.

        Args:
            objective: Eq. 17.
            predicted: loads as a function of log prices.
            start: the state from which the plan starts.
            nominal: (N,G) log prices near which half of the sample lies.
            number: number of sequences.
        """
        sequences = np.concatenate([self._anywhere, np.clip(nominal + self._moves, 0.0, self.top)])
        with np.errstate(all="ignore"):
            values = objective(predicted.loads(sequences), start.load, start.target, start.emphasis)
        chosen: list[np.ndarray] = []
        for k in np.argsort(np.where(np.isfinite(values), values, np.inf)):
            if len(chosen) == number or not np.isfinite(values[k]):
                break
            if all(np.abs(sequences[k] - other).max() > _DIFFERENT for other in chosen):
                chosen.append(sequences[k])
        return chosen
