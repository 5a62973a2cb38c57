"""DCAF's balancer: the smallest prices whose replayed cost fits what a request may use, found by bisection."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from marca_env.traffic.allocation import allocate
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY
from mpc.balancers.base import PRICE_MAX, bounded, check_price_max, telemetry_fault

if TYPE_CHECKING:
    from marca_env.traffic.clusters import ControlObservation

_HULL_CLUSTERS = 3  # a hull of more dimensions takes longer than the actions that it saves


class BisectionBalancer:
    """Replays a sample of requests and bisects for the smallest λ whose cost fits budget / QPS per request.

    The cost of the replay is a non-increasing step function of each price (Eq. 6 is the argmax of functions that are
    linear in λ); with several clusters the prices are bisected in turn, each for the others as they stand, until none
    moves. The traffic is that of the last minute, so this balancer is feed-forward in costs and late in traffic.

    Args:
        values: (M,J) predicted currency per request of the sample.
        costs: (M,J,G) predicted core-seconds per request.
        weights: (M,) how often each request comes; ``None``: all alike.
        windows: (M,) part of the day, 0 … W − 1, that each request belongs to; then only those of the current
            minute's part are replayed. ``None``: all of them always.
        n_windows: W, equal parts of the day.
        tolerance: relative width at which the bisection of a price stops.
        sweeps: most rounds over the clusters.
        release_margin: share of the budget that a degraded cluster leaves free, so that overload protection lets go.
        price_max: () or (G,) bound of the prices.

    Raises:
        InputError: shapes that do not fit, values that are not finite, or a window out of range.
    """

    def __init__(
        self,
        values: np.ndarray,
        costs: np.ndarray,
        *,
        weights: np.ndarray | None = None,
        windows: np.ndarray | None = None,
        n_windows: int | None = None,
        tolerance: float = 1e-3,
        sweeps: int = 8,
        release_margin: float = 0.0,
        price_max: float | np.ndarray = PRICE_MAX,
    ) -> None:
        self._tables, self.n_windows = split_tables(values, costs, weights, windows, n_windows)
        if not tolerance > 0 or sweeps < 1:
            raise InputError(f"tolerance is {tolerance} and sweeps {sweeps}; both must be positive")
        self.price_max = np.broadcast_to(check_price_max(price_max), np.shape(costs)[-1:])
        if not 0 <= release_margin < 1:
            raise InputError(f"release_margin is {release_margin}; it must lie in [0, 1), a share of the budget")
        self.tolerance, self.sweeps, self.release_margin = tolerance, sweeps, release_margin
        self._scale = price_scale(values, costs)
        self.reset()

    def reset(self) -> None:
        self._prices: np.ndarray | None = None

    def update(self, observation: ControlObservation) -> np.ndarray:
        if telemetry_fault(observation, limit=np.inf) is not None or observation.qps <= 0:
            return bounded(observation.prices, self.price_max)
        share = int(observation.minute) % MINUTES_PER_DAY * self.n_windows // MINUTES_PER_DAY
        allowance = np.asarray(observation.budget, dtype=np.float64) / observation.qps  # (G,) core-seconds per request
        allowance = np.where(np.asarray(observation.degradation) > 0, 1 - self.release_margin, 1.0) * allowance
        self._prices = self.solve(allowance, window=share, start=self._prices)
        return self._prices.copy()

    def solve(
        self,
        allowance: np.ndarray,
        *,
        window: int = 0,
        start: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Smallest prices (G,) whose replayed mean cost is at most ``allowance`` (G,), core-seconds per request.

        A cluster whose cheapest actions do not fit gets ``price_max``.

        Args:
            allowance: core-seconds per request.
            window: part of the day whose requests are replayed.
            start: prices to start from.
            weights: (M,) how often each request of the sample comes, instead of what was given at first.
        """
        table = self._tables[window] if weights is None else self._tables[window].reweighted(weights)
        prices = np.zeros(len(self._scale)) if start is None else np.array(start, dtype=np.float64)
        for _ in range(self.sweeps):
            before = prices.copy()
            for g in range(len(prices)):
                prices[g] = self._bisect(table, prices, g, float(allowance[g]))
            if np.all(np.abs(prices - before) <= 2 * self.tolerance * np.maximum(before, self._scale * self.tolerance)):
                break
        return prices

    def _bisect(self, table: RequestTable, prices: np.ndarray, g: int, allowance: float) -> float:
        """Smallest price of cluster g that fits, the others as they stand. Brackets around the present price first."""
        trial = prices.copy()

        def fits(price: float) -> bool:
            trial[g] = price
            return bool(table.cost(trial)[g] <= allowance)

        if fits(0.0):
            return 0.0
        known = prices[g] > self.tolerance * self._scale[g]
        low, high = 0.0, min(float(prices[g] if known else self._scale[g]), self.price_max[g])
        step = 1.05  # the price of the last minute is nearly right; widen fast where it is not
        while not fits(high):
            if high >= self.price_max[g]:
                return float(self.price_max[g])
            low, high, step = high, min(high * step, self.price_max[g]), step**2
        if low == 0.0:
            step, low = 1.05, high / 1.05
            while low > self.tolerance * self._scale[g] and fits(low):
                step = step**2
                low, high = low / step, low
            low = low if low > self.tolerance * self._scale[g] else 0.0
        while high - low > self.tolerance * max(high, self.tolerance * self._scale[g]):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high


class RequestTable:
    """Requests of one part of the day, without the actions that no price would choose.

    Args:
        values: (M,J) currency per request.
        costs: (M,J,G) core-seconds per request.
        weights: (M,) how often each comes, in any unit.
        rows: (M,) which rows of a larger sample these are; ``None``: they are the sample.

    Attributes:
        values: (M,J') currency per request; ``costs`` (M,J',G) core-seconds; ``weights`` (M,), which sum to one.
    """

    def __init__(
        self, values: np.ndarray, costs: np.ndarray, weights: np.ndarray, rows: np.ndarray | None = None
    ) -> None:
        kept = [_supported(v, c) for v, c in zip(values, costs, strict=True)]
        width = max(len(k) for k in kept)
        index = np.array([np.concatenate([k, np.full(width - len(k), k[0])]) for k in kept])  # repeats never matter
        each = np.arange(len(values))
        self.values, self.costs = values[each[:, None], index], costs[each[:, None], index]
        self.rows = each if rows is None else rows
        self.weights = weights / weights.sum()

    def reweighted(self, weights: np.ndarray) -> RequestTable:
        """The same requests that come as ``weights`` (M,) of the whole sample say."""
        other = copy(self)
        part = np.asarray(weights, dtype=np.float64)[self.rows]
        other.weights = part / part.sum()
        return other

    def cost(self, prices: np.ndarray) -> np.ndarray:
        """(G,) mean core-seconds per request under the prices."""
        chosen = allocate(self.values, self.costs, prices)
        return self.weights @ self.costs[np.arange(len(chosen)), chosen]


def _supported(values: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Indices of the actions (J,), (J,G) that may be the best under some prices: corners of the convex hull of what no
    other action matches in value at no more cost."""
    kept = _undominated(values, costs)
    if costs.shape[1] > _HULL_CLUSTERS or len(kept) <= 4 * (costs.shape[1] + 2):
        return kept
    points = np.column_stack([values[kept], costs[kept]]).astype(np.float64)
    try:
        corners = ConvexHull((points - points.min(0)) / np.maximum(np.ptp(points, axis=0), 1e-12)).vertices
    except QhullError:  # flat: all on one line or plane
        return kept
    return kept[np.sort(corners)]


def _undominated(values: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Indices of the actions that no other action matches in value at no more cost on every cluster; (J,), (J,G)."""
    order = np.lexsort((costs.sum(-1), -values))  # best value first, then cheapest
    ordered = costs[order]
    cheaper = np.ones((len(order), len(order)), dtype=bool)  # [j, k]: k costs no more than j anywhere
    for column in ordered.T:
        cheaper &= column[None, :] <= column[:, None]
    return order[~np.tril(cheaper, -1).any(axis=1)]


def split_tables(
    values: np.ndarray, costs: np.ndarray, weights: Any, windows: Any, n_windows: int | None
) -> tuple[list[RequestTable], int]:
    """A sample of requests by the part of the day that they belong to, and the number of parts.

    Args:
        values: (M,J) currency per request.
        costs: (M,J,G) core-seconds per request.
        weights: (M,) how often each comes; ``None``: all alike.
        windows: (M,) parts of the day; ``None``: every part has them all.
        n_windows: number of parts; ``None``: as many as ``windows`` names.

    Raises:
        InputError: shapes that do not fit, values that are not finite, or a window out of range.
    """
    values, costs = np.asarray(values, dtype=np.float32), np.asarray(costs, dtype=np.float32)
    if values.ndim != 2 or costs.shape[:2] != values.shape or costs.ndim != 3 or values.size == 0:
        raise InputError(
            f"values {values.shape} and costs {costs.shape} must be (requests, actions) and one per cluster"
        )
    if not (np.isfinite(values).all() and np.isfinite(costs).all() and (costs >= 0).all()):
        raise InputError("values and costs must be finite, and costs not negative; check the fitted models")
    n_windows = n_windows or (1 if windows is None else int(np.max(windows)) + 1)
    n = len(values)
    weights = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise InputError(f"weights must be {n} finite numbers, not negative and not all zero")
    if windows is None:
        return [RequestTable(values, costs, weights)] * n_windows, n_windows
    windows = np.asarray(windows)
    if windows.shape != (n,) or windows.min() < 0 or windows.max() >= n_windows:
        raise InputError(f"windows must be {n} numbers from 0 to {n_windows - 1}")
    tables: dict[int, RequestTable] = {}
    for window in range(n_windows):
        within = (windows == window) & (weights > 0)
        # a part of the day without requests replays them all
        rows = np.flatnonzero(within if within.any() else weights > 0)
        tables[window] = RequestTable(values[rows], costs[rows], weights[rows], rows)
    return [tables[w] for w in range(n_windows)], n_windows


def price_scale(values: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """(G,) value per unit of cost: where the interesting prices begin."""
    spread = np.ptp(values, axis=1).mean()
    return np.maximum(spread, 1e-9) / np.maximum(np.ptp(costs, axis=1).mean(axis=0), 1e-9)
