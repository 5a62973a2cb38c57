"""Waiting time of requests at loaded clusters: an M/M/c queue, and the work that already waits.

The wait in the queue follows Sakasegawa's approximation of Erlang's C formula ("An approximation formula
L_q ≃ α·ρ^β/(1−ρ)", Annals of the Institute of Statistical Mathematics 29, 1977), which also takes fractional numbers of
cores: a request waits with probability ρ^(√(2(c+1))−1), and then for a mean of E[S]/(c(1−ρ)), exponentially
distributed. ρ is the load over the cores, c the number of cores, and E[S] the computation of a request. A cluster of
less than one core counts as one slower core. A request waits once at each cluster that it uses.

The formula holds for a stationary queue. Near and above ρ = 1 a period is too short for one, and work that the cores
cannot do waits as backlog instead; therefore ρ counts as at most ``HIGHEST_UTILISATION``, and the backlog's seconds are
added.
"""

from __future__ import annotations

import numpy as np

from marca_env.models.latency import Duration

HIGHEST_UTILISATION = 0.98
"""Load over cores above which the stationary wait no longer grows."""


def waiting_time(load: np.ndarray, cores: np.ndarray, work: np.ndarray, backlog: np.ndarray) -> Duration:
    """Return how long a request waits at each cluster, (…,G).

    Args:
        load: (…,G) work offered, core-seconds per second.
        cores: (G,) capacity, core-seconds per second.
        work: (…,G) computation of a request on each cluster, core-seconds.
        backlog: (…,G) seconds of the cluster's cores that wait already, on average over the period.
    """
    utilisation = np.minimum(load / cores, HIGHEST_UTILISATION)
    probability = utilisation ** (np.sqrt(2.0 * (np.maximum(cores, 1.0) + 1.0)) - 1.0)
    mean = work / (cores * (1.0 - utilisation))  # of those that wait
    return Duration(probability * mean + backlog, (2.0 - probability) * probability * mean**2)


def mean_backlog(before: np.ndarray, after: np.ndarray, cores: np.ndarray) -> np.ndarray:
    """Return the mean backlog of a period in seconds, (…,G), from the waiting work at its ends, core-seconds.

    Between the ends the work rises or falls steadily.
    """
    return (before + after) / 2 / cores
