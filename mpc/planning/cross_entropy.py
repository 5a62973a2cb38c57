"""The cross-entropy method: minimise a function by drawing around a mean that follows the best draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_CONVERGED_SPREAD = 1e-3


def cross_entropy(
    evaluate: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    spread: float,
    rng: np.random.Generator,
    *,
    project: Callable[[np.ndarray], np.ndarray],
    samples: int,
    elite: int,
    rounds: int,
    least_spread: float = 0.0,
    out_of_time: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, int, bool]:
    """Return the best point found, the rounds taken, and whether the draws have converged.

    Args:
        evaluate: values (n,) of points (n,…), to be minimised.
        start: (…) mean of the first round; it is a candidate itself.
        spread: standard deviation of the first round.
        rng: source of the draws.
        project: maps points (n,…) to the nearest feasible ones.
        samples: n, points drawn in a round.
        elite: number of best points that mean and spread follow.
        rounds: largest number of rounds.
        least_spread: added to every spread after the first round.
        out_of_time: whether the search must end after this round.
    """
    mean, deviation = np.array(start), np.full(np.shape(start), spread)
    best, least = mean, float(evaluate(mean[None])[0])
    for k in range(rounds):
        drawn = project(mean + deviation * rng.standard_normal((samples, *mean.shape)))
        values = evaluate(drawn)
        order = np.argsort(values)[:elite]
        if values[order[0]] < least:
            best, least = drawn[order[0]], float(values[order[0]])
        mean, deviation = drawn[order].mean(0), drawn[order].std(0) + least_spread
        converged = bool(deviation.max() < _CONVERGED_SPREAD)
        if converged or out_of_time():
            return best, k + 1, converged
    return best, rounds, False
