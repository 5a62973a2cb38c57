"""Allocation under prices: the joint action that each request gets, and what a minute of service yields and costs.

The rule is a* = argmax_a Q(s,a) − Σ_g λ_g C_g(s,a) (Eq. 6, arXiv 2512.24325). The most that any allocation can earn is
bounded by :func:`marca_env.traffic.dual_bound.dual_bound`. Shapes: M kinds of request, J joint actions, G clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from marca_env.models.latency import Duration, mixture_quantiles
from marca_env.models.lateness import latency_quantile
from marca_env.models.request_pool import RequestPool, distinct_columns
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.clusters import ClusterModel, ClusterReading, ClusterState
from marca_env.traffic.dual_bound import CHUNK_FLOATS, checked_prices, score_of
from marca_env.traffic.waiting import mean_backlog, waiting_time
from marca_env.utils.errors import InputError


def allocate(values: np.ndarray, costs: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Return the joint action of each request under the prices (Eq. 6).

    Ties go to the cheapest action, then to the lowest index.

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
    actions = np.empty(n, dtype=np.int64)
    step = max(1, CHUNK_FLOATS // n_joint)
    for start in range(0, n, step):
        part = slice(start, start + step)
        score = score_of(values[part], costs[part], prices)
        best = score.argmax(axis=1)
        finite = np.isfinite(score[np.arange(len(score)), best])
        if not finite.all():  # argmax stops at the first nan
            raise InputError(f"request {start + int(np.argmin(finite))}: a value or cost is not finite; fix the model")
        row, action = np.nonzero(score == score[np.arange(len(score)), best, None])
        if len(row) > len(score):
            order = np.lexsort((action, costs[part][row, action].sum(axis=-1), row))
            best[row[order][::-1]] = action[order][::-1]  # the last one written of each row is its cheapest
        actions[part] = best
    return actions


class AllocationTable:
    """Values and costs of the joint actions that a policy may choose, for each kind of request.

    Args:
        values: (M,J) revenue that the policy expects, currency per request.
        costs: (M,J,G) cost that it expects, core-seconds per request.
        actions: (J',) joint actions that it may choose; ``None``: all.

    Attributes:
        values: (M,J'), the columns of ``actions``.
        costs: (M,J',G), the costs of ``actions``.
    """

    def __init__(self, values: np.ndarray, costs: np.ndarray, actions: np.ndarray | None = None) -> None:
        self.actions = np.arange(values.shape[1]) if actions is None else actions
        columns = slice(None) if actions is None else actions
        self.values = np.ascontiguousarray(values[:, columns])
        self.costs = np.ascontiguousarray(costs[:, columns])
        self._pool: RequestPool | None = None

    @classmethod
    def of_pool(cls, pool: RequestPool) -> AllocationTable:
        """Return the true revenue and cost of the pool's distinct actions (:func:`distinct_actions`)."""
        table = cls(pool.outcomes["revenue"], pool.costs, distinct_actions(pool))
        table._pool = pool
        return table

    def __reduce__(self) -> tuple[Callable[..., AllocationTable], tuple[Any, ...]]:
        """Pickle the pool of :meth:`of_pool` in place of its columns, which would be in the pickle twice."""
        if self._pool is None:
            return _rebuilt_table, (self.actions, self.values, self.costs)
        return AllocationTable.of_pool, (self._pool,)

    def choose(self, prices: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the joint action of each kind of request in ``rows`` under ``prices`` (G,), (len(rows),)."""
        return self.actions[allocate(self.values[rows], self.costs[rows], prices)]


def _rebuilt_table(actions: np.ndarray, values: np.ndarray, costs: np.ndarray) -> AllocationTable:
    """Return a table from its own attributes."""
    table = AllocationTable(values, costs)
    table.actions = actions
    return table


def distinct_actions(pool: RequestPool) -> np.ndarray:
    """Return one joint action of each group that earns and costs the same, (J',): see :func:`distinct_columns`."""
    return distinct_columns(pool.scenario, pool.outcomes["revenue"], pool.costs)[0]


@dataclass(frozen=True)
class LatencyReading:
    """Latency of the requests that were served in a period; nan if there were none."""

    p50: float
    """Median seconds from arrival to answer."""
    p99: float
    """99 % quantile, seconds."""
    late: float
    """Share of the requests that were late."""


@dataclass(frozen=True)
class MinuteOutcome:
    """Outcome and cost of a period of service."""

    requests: int
    """Requests that came."""
    qps: float
    """Requests per second."""
    outcomes: dict[str, float]
    """name → sum over the requests that were served, e.g. ``revenue`` in currency."""
    load: np.ndarray
    """(G,) work offered, core-seconds per second."""
    equivalent: np.ndarray
    """(G,) undegraded load C = Ĉ + f(D) (Eq. 1), core-seconds per second; f(D) is what degradation saved."""
    degradation: np.ndarray
    """(G,) int, degradation levels that were in force."""
    reading: ClusterReading
    """Measurements of the machines."""
    served_share: float
    """Share of the requests that no cluster dropped."""
    latency: LatencyReading | None = None
    """Latency; ``None`` without a latency limit."""


def serve_minute(
    pool: RequestPool,
    actions: np.ndarray,
    counts: np.ndarray,
    cluster_model: ClusterModel,
    state: ClusterState,
    seconds: float,
    cost_factor: np.ndarray | float = 1.0,
) -> tuple[MinuteOutcome, ClusterState]:
    """Serve a period's requests with the degradation in force and let the clusters react.

    A request is lost when any cluster that it uses drops it.

    Args:
        pool: the kinds of request.
        actions: (M,) joint action chosen for each kind.
        counts: (M,) requests of each kind.
        cluster_model: dynamics of the clusters.
        state: state after the period before.
        seconds: length of the period.
        cost_factor: (G,) real cost of a request on each cluster, over the pool's cost.

    Returns:
        The outcome of the period and the state after it.
    """
    executed = degrade(pool.scenario, actions, state.degradation, pool.scenario.site_of(pool.states))
    rows, total = np.arange(len(executed)), int(counts.sum())
    qps = total / seconds
    demand = counts @ pool.costs[rows, executed].astype(np.float64) / seconds * cost_factor  # (G,)
    # f(D) from the actions that were chosen. The constant of an isolated load test overstates it for requests that
    # prices have already made cheap, and a degraded cluster would never be released.
    equivalent = demand
    if np.any(state.degradation > 0):
        equivalent = counts @ pool.costs[rows, actions].astype(np.float64) / seconds * cost_factor
    after, reading = cluster_model.step(state, demand, equivalent, seconds)
    by_site = _counts_by_site(pool, counts)
    earned, time = {name: table[rows, executed].astype(np.float64) for name, table in pool.outcomes.items()}, None
    if pool.lateness is not None:
        backlog = mean_backlog(state.waiting_work, after.waiting_work, cluster_model.cores)
        time = _latency(pool, executed, _waiting(pool, by_site, demand, cluster_model.cores, backlog, seconds))
        earned = pool.lateness.outcomes_of(executed, time.share_above(pool.lateness.latency.limit))
    sums, served, answered = dict.fromkeys(pool.outcomes, 0.0), 0.0, np.zeros(len(executed))
    shares = share_served(pool.scenario, reading.dropped)
    for site_counts, share in zip(by_site, shares, strict=True):
        served += float(share) * (site_counts.sum() / total if total else 1.0 / pool.scenario.n_sites)
        answered += float(share) * site_counts
        for name, each in earned.items():
            sums[name] += float(share) * float(site_counts @ each)
    latency = None if time is None else _read_latency(pool, time, answered)
    outcome = MinuteOutcome(total, qps, sums, demand, equivalent, state.degradation, reading, served, latency)
    return outcome, after


def _waiting(
    pool: RequestPool,
    by_site: list[np.ndarray],
    demand: np.ndarray,
    cores: np.ndarray,
    backlog: np.ndarray,
    seconds: float,
) -> Duration:
    """Return how long a request waits at each cluster, (G,); the formula's job is the mean request of the period."""
    qps = np.array([site_counts.sum() for site_counts in by_site]) @ pool.scenario.site_clusters / seconds  # (G,)
    work = np.divide(demand, qps, out=np.zeros_like(demand), where=qps > 0)
    return waiting_time(demand, cores, work, backlog)


def _latency(pool: RequestPool, executed: np.ndarray, waiting: Duration) -> Duration:
    """Return the time from arrival to answer of each kind of request, (M,): service, and the wait at its clusters."""
    assert pool.lateness is not None
    service = pool.lateness.service.take((np.arange(len(executed)), executed))
    uses = pool.scenario.site_clusters.astype(np.float64)  # (sites,G)
    site = pool.scenario.site_of(pool.states)
    site = np.zeros(len(executed), dtype=np.int64) if site is None else site
    return service + Duration((uses @ waiting.mean)[site], (uses @ waiting.variance)[site])


def _read_latency(pool: RequestPool, time: Duration, answered: np.ndarray) -> LatencyReading:
    """Summarise the latency (M,) of ``answered`` (M,) requests of each kind."""
    assert pool.lateness is not None
    limit = pool.lateness.latency
    if answered.sum() <= 0:
        return LatencyReading(np.nan, np.nan, np.nan)
    p50, p99 = latency_quantile(limit, mixture_quantiles(time, answered, (0.5, 0.99)))
    late = float(answered @ time.share_above(limit.limit) / answered.sum())
    return LatencyReading(float(p50), float(p99), late)


def _counts_by_site(pool: RequestPool, counts: np.ndarray) -> list[np.ndarray]:
    """Return the counts (M,) of each site's requests, zero for the requests of other sites."""
    site = pool.scenario.site_of(pool.states)
    return [counts] if site is None else [counts * (site == k) for k in range(pool.scenario.n_sites)]


def share_served(scenario: Scenario, dropped: np.ndarray) -> np.ndarray:
    """Return the share of each site's requests that none of its clusters drops: ``dropped`` (…,G) → (…,sites)."""
    return np.where(scenario.site_clusters, 1.0 - dropped[..., None, :], 1.0).prod(axis=-1)


def degrade(scenario: Scenario, actions: np.ndarray, levels: np.ndarray, site: np.ndarray | None = None) -> np.ndarray:
    """Return the joint action (M,) that is really executed for each chosen one.

    Args:
        scenario: says what each degradation level takes away.
        actions: (M,) chosen joint actions.
        levels: (G,) degradation level of each cluster.
        site: (M,) int, site at which each request is served; ``None``: there is one site.
    """
    executed = np.array(actions)
    for place, uses in enumerate(scenario.site_clusters):
        requests = slice(None) if site is None else site == place
        for cluster in np.flatnonzero(uses & (np.asarray(levels) > 0)):
            executed[requests] = scenario.degraded(int(cluster), int(levels[cluster]), place)[executed[requests]]
    return executed
