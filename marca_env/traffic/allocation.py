"""Serving with prices: who gets which joint action, what that costs the clusters, and the best it could have earned.

The rule is a* = argmax_a Q(s,a) − Σ_g λ_g C_g(s,a) (Eq. 6, arXiv 2512.24325); its bound, :func:`dual_bound`, is in
:mod:`marca_env.traffic.dual_bound`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.clusters import ClusterModel, ClusterReading, ClusterState
from marca_env.traffic.dual_bound import CHUNK_FLOATS, checked_prices, score_of
from marca_env.utils.errors import InputError

__all__ = ["MinuteOutcome", "allocate", "arrivals", "degrade", "serve_minute"]


def allocate(values: np.ndarray, costs: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """The joint action of each request under the prices, Eq. 6; ties go to the cheapest, then to the lowest index.

    Args:
        values: (M,J) currency per request.
        costs: (M,J,G) core-seconds per request.
        prices: (G,) currency per core-second, not negative.

    Returns:
        (M,) int64 indices into the joint actions.

    Raises:
        InputError: shapes that do not fit together, values, costs or prices that are not finite, or negative prices.
    """
    prices = checked_prices(values, costs, prices).astype(np.float32)
    n, n_joint = values.shape
    chosen = np.empty(n, dtype=np.int64)
    step = max(1, CHUNK_FLOATS // n_joint)
    for start in range(0, n, step):
        part = slice(start, start + step)
        score = score_of(values[part], costs[part], prices)
        best = score.argmax(axis=1)
        known = np.isfinite(score[np.arange(len(score)), best])
        if not known.all():  # argmax stops at the first nan
            raise InputError(f"request {start + int(np.argmin(known))}: a value or cost is not finite; mend the model")
        row, action = np.nonzero(score == score[np.arange(len(score)), best, None])
        if len(row) > len(score):
            order = np.lexsort((action, costs[part][row, action].sum(axis=-1), row))
            best[row[order][::-1]] = action[order][::-1]  # the last to be written of each row is its cheapest
        chosen[part] = best
    return chosen


def arrivals(rng: np.random.Generator, pool: RequestPool, qps: float, seconds: float, minute: int) -> np.ndarray:
    """Requests of each kind in a period: Poisson(qps · seconds) in all, spread over the pool's current window.

    Args:
        rng: source of the draw.
        pool: the kinds of request.
        qps: mean requests per second.
        seconds: length of the period.
        minute: minute of the day, 0 … 1439.

    Returns:
        (M,) int64 counts.
    """
    if not (np.isfinite(qps) and qps >= 0):
        raise InputError(f"qps is {qps}; it must be finite and not negative")
    return rng.multinomial(rng.poisson(qps * seconds), pool.probabilities(minute))


@dataclass(frozen=True)
class MinuteOutcome:
    """What a period brought and what it cost."""

    requests: int
    """Requests that came."""
    qps: float
    outcomes: dict[str, float]
    """name → sum over the requests that were served, e.g. ``revenue`` in currency."""
    load: np.ndarray
    """(G,) work offered, core-seconds per second."""
    equivalent: np.ndarray
    """(G,) undegraded C = Ĉ + f(D) (Eq. 1), core-seconds per second; f(D) is what degradation spared this traffic."""
    degradation: np.ndarray
    """(G,) int, levels that were in force."""
    reading: ClusterReading
    kept: float
    """Share of the requests that no cluster dropped."""


def serve_minute(
    pool: RequestPool,
    chosen: np.ndarray,
    counts: np.ndarray,
    cluster_model: ClusterModel,
    state: ClusterState,
    seconds: float,
    cost_factor: np.ndarray | float = 1.0,
) -> tuple[MinuteOutcome, ClusterState]:
    """Serve a period's requests with the degradation in force and let the clusters react.

    Args:
        pool: the kinds of request.
        chosen: (M,) joint action that was chosen for each kind.
        counts: (M,) requests of each kind.
        cluster_model: dynamics of the clusters.
        state: what the period before left.
        seconds: length of the period.
        cost_factor: (G,) what a request really costs each cluster, over the pool's costs.

    Returns:
        The outcome of the period and the state it leaves. A request is lost when any cluster that it uses drops it.
    """
    ran = degrade(pool.scenario, chosen, state.degradation, pool.scenario.site_of(pool.states))
    rows, total = np.arange(len(ran)), int(counts.sum())
    qps = total / seconds
    demand = counts @ pool.costs[rows, ran].astype(np.float64) / seconds * cost_factor  # (G,)
    # f(D) from the actions that were chosen. The constant of an isolated load test overstates it for requests that
    # prices have already made cheap, and a degraded cluster would never be released.
    equivalent = demand
    if np.any(state.degradation > 0):
        equivalent = counts @ pool.costs[rows, chosen].astype(np.float64) / seconds * cost_factor
    after, reading = cluster_model.step(state, demand, equivalent, seconds)
    sums, kept = dict.fromkeys(pool.outcomes, 0.0), 0.0
    for here, share in zip(_by_site(pool, counts), served_share(pool.scenario, reading.dropped), strict=True):
        kept += float(share) * (here.sum() / total if total else 1.0 / pool.scenario.n_sites)
        for name, table in pool.outcomes.items():
            sums[name] += float(share) * float(here @ table[rows, ran].astype(np.float64))
    outcome = MinuteOutcome(total, qps, sums, demand, equivalent, state.degradation, reading, kept)
    return outcome, after


def _by_site(pool: RequestPool, counts: np.ndarray) -> list[np.ndarray]:
    """The counts (M,) of each site's requests, zero for the others."""
    site = pool.scenario.site_of(pool.states)
    return [counts] if site is None else [counts * (site == k) for k in range(pool.scenario.n_sites)]


def served_share(scenario: Scenario, dropped: np.ndarray) -> np.ndarray:
    """Share of each site's requests that none of its clusters drops: ``dropped`` (…, G) → (…, sites)."""
    return np.where(scenario.site_clusters, 1.0 - dropped[..., None, :], 1.0).prod(axis=-1)


def degrade(scenario: Scenario, chosen: np.ndarray, levels: np.ndarray, site: np.ndarray | None = None) -> np.ndarray:
    """Joint action (M,) that really runs for each chosen one (M,) when cluster g is at level ``levels[g]``.

    ``site`` (M,) int is where each request is served; ``None`` where there is one site.
    """
    ran = np.array(chosen)
    for place, uses in enumerate(scenario.site_clusters):
        here = slice(None) if site is None else site == place
        for cluster in np.flatnonzero(uses & (np.asarray(levels) > 0)):
            ran[here] = scenario.degraded(int(cluster), int(levels[cluster]), place)[ran[here]]
    return ran
