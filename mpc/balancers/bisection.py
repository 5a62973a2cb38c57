"""Bisection on replayed requests, as in DCAF (a dynamic computation allocation framework).

The balancer finds the smallest prices at which the mean cost of a sample of requests fits the budget per request.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from marca_env.traffic.allocation import allocate
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY
from marca_env.utils.validation import as_whole_number
from mpc.balancers.base import PRICE_MAX, check_price_max, clip_prices, telemetry_fault
from mpc.balancers.saved_state import to_lists, to_optional_array
from mpc.validation import FINITE_POSITIVE, MARGIN, at_least, check_values

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation

_HULL_CLUSTERS = 3  # with more clusters a convex hull takes longer than it saves


class BisectionBalancer:
    """Replays a sample of requests and bisects for the smallest λ whose mean cost fits budget/QPS per request.

    The mean cost is a non-increasing step function of each price, because Eq. 6 (arXiv 2512.24325) takes the argmax of
    functions that are linear in λ. With several clusters the prices are bisected in turn while the others stay fixed,
    until none changes. The QPS is that of the last minute, so this balancer lags behind the traffic by a minute.

    Args:
        values: (M,J) predicted currency per request of the sample.
        costs: (M,J,G) predicted core-seconds per request.
        weights: (M,) relative frequency of each request; ``None``: all equal.
        windows: (M,) window of the day, 0 … W − 1, of each request. Only the requests of the current window are
            replayed. ``None``: all requests are replayed in every minute.
        n_windows: W, the number of equal windows of a day.
        tolerance: relative width at which the bisection of a price stops.
        sweeps: largest number of rounds over the clusters.
        release_margin: fraction of the budget that a degraded cluster leaves free, so that overload protection is
            released.
        price_max: () or (G,) upper bound of the prices, currency per core-second.

    Raises:
        InputError: shapes that do not match, values that are not finite, or a setting out of range.
    """

    @checked_arguments
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
        self.price_max = np.broadcast_to(check_price_max(price_max), np.shape(costs)[-1:])
        check_values(
            {"tolerance": tolerance, "sweeps": sweeps, "release_margin": release_margin},
            {"tolerance": FINITE_POSITIVE, "sweeps": at_least(1), "release_margin": MARGIN},
        )
        self.tolerance, self.sweeps, self.release_margin = tolerance, sweeps, release_margin
        self._scale = price_scale(values, costs)
        self.reset()

    def reset(self) -> None:
        """Forget the prices of the last minute, where the next search would start."""
        self._prices: np.ndarray | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as values of JSON."""
        return {"prices": to_lists(self._prices)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InputError: a damaged state, or one of another number of clusters.
        """
        self._prices = to_optional_array(state, "prices", self._scale.shape)

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Return the prices (G,) for the coming minute; unusable telemetry leaves the prices in force."""
        if telemetry_fault(observation, limit=np.inf) is not None or observation.qps <= 0:
            return clip_prices(observation.prices, self.price_max)
        window = int(observation.minute) % MINUTES_PER_DAY * self.n_windows // MINUTES_PER_DAY
        allowance = np.asarray(observation.budget, dtype=np.float64) / observation.qps  # (G,) core-seconds per request
        allowance = np.where(np.asarray(observation.degradation) > 0, 1 - self.release_margin, 1.0) * allowance
        self._prices = self.solve(allowance, window=window, start=self._prices)
        return self._prices.copy()

    def solve(
        self,
        allowance: np.ndarray,
        *,
        window: int = 0,
        start: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the smallest prices (G,) whose mean cost in the replay is at most ``allowance``.

        A cluster whose cheapest actions do not fit gets ``price_max``.

        Args:
            allowance: (G,) core-seconds per request.
            window: window of the day whose requests are replayed.
            start: (G,) prices at which the search starts.
            weights: (M,) relative frequency of each request, in place of the one passed at construction.
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
        """Return the smallest price of cluster g that fits while the others stay; bracket the present price first."""
        trial = prices.copy()

        def fits(price: float) -> bool:
            trial[g] = price
            return bool(table.cost(trial)[g] <= allowance)

        if fits(0.0):
            return 0.0
        is_priced = prices[g] > self.tolerance * self._scale[g]
        low, high = 0.0, min(float(prices[g] if is_priced else self._scale[g]), self.price_max[g])
        step = 1.05  # the price of the last minute is usually nearly right; otherwise the bracket widens fast
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
    """Requests of one window of the day, without the actions that no price would choose.

    Args:
        values: (M,J) currency per request.
        costs: (M,J,G) core-seconds per request.
        weights: (M,) relative frequency of each request, in any unit.
        rows: (M,) rows of these requests in a larger sample; ``None``: they are the whole sample.

    Attributes:
        values: (M,J') currency per request.
        costs: (M,J',G) core-seconds per request.
        weights: (M,) relative frequencies, which sum to one.
    """

    def __init__(
        self, values: np.ndarray, costs: np.ndarray, weights: np.ndarray, rows: np.ndarray | None = None
    ) -> None:
        actions = [_supported(v, c) for v, c in zip(values, costs, strict=True)]
        width = max(len(a) for a in actions)
        # Rows are padded with their first action; a repeated action never changes the choice.
        index = np.array([np.concatenate([a, np.full(width - len(a), a[0])]) for a in actions])
        requests = np.arange(len(values))
        self.values, self.costs = values[requests[:, None], index], costs[requests[:, None], index]
        self.rows = requests if rows is None else rows
        self.weights = weights / weights.sum()

    def reweighted(self, weights: np.ndarray) -> RequestTable:
        """Return the same requests with other weights, (M,) of the whole sample."""
        table = copy(self)
        own_weights = np.asarray(weights, dtype=np.float64)[self.rows]
        table.weights = own_weights / own_weights.sum()
        return table

    def cost(self, prices: np.ndarray) -> np.ndarray:
        """Return the mean cost (G,), core-seconds per request, under prices (G,)."""
        actions = allocate(self.values, self.costs, prices)
        return self.weights @ self.costs[np.arange(len(actions)), actions]


def _supported(values: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Return the actions that may be the best under some prices, from values (J,) and costs (J,G).

    They are the corners of the convex hull of the actions that no other action dominates.
    """
    undominated = _undominated(values, costs)
    if costs.shape[1] > _HULL_CLUSTERS or len(undominated) <= 4 * (costs.shape[1] + 2):
        return undominated
    points = np.column_stack([values[undominated], costs[undominated]]).astype(np.float64)
    try:
        corners = ConvexHull((points - points.min(0)) / np.maximum(np.ptp(points, axis=0), 1e-12)).vertices
    except QhullError:  # all points lie on one line or plane
        return undominated
    return undominated[np.sort(corners)]


def _undominated(values: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Return the actions that no other dominates: has at least their value, (J,), at no more cost, (J,G)."""
    order = np.lexsort((costs.sum(-1), -values))  # best value first, then cheapest
    ordered = costs[order]
    cheaper = np.ones((len(order), len(order)), dtype=bool)  # [j, k]: k costs no more than j anywhere
    for column in ordered.T:
        cheaper &= column[None, :] <= column[:, None]
    return order[~np.tril(cheaper, -1).any(axis=1)]


def split_tables(
    values: np.ndarray, costs: np.ndarray, weights: Any, windows: Any, n_windows: int | None
) -> tuple[list[RequestTable], int]:
    """Split a sample of requests by window of the day; return the tables and the number of windows W.

    Args:
        values: (M,J) currency per request.
        costs: (M,J,G) core-seconds per request.
        weights: (M,) relative frequency of each request; ``None``: all equal.
        windows: (M,) window of each request; ``None``: every window has all requests.
        n_windows: W; ``None``: one more than the largest of ``windows``.

    Raises:
        InputError: shapes that do not match, values that are not finite, or a window out of range.
    """
    values, costs = np.asarray(values, dtype=np.float32), np.asarray(costs, dtype=np.float32)
    if values.ndim != 2 or costs.shape[:2] != values.shape or costs.ndim != 3 or values.size == 0:
        raise InputError(
            f"values have shape {values.shape} and costs {costs.shape}; they must be (requests, actions) and "
            "(requests, actions, clusters)"
        )
    if not (np.isfinite(values).all() and np.isfinite(costs).all() and (costs >= 0).all()):
        raise InputError("values and costs must be finite, and costs not negative; check the fitted models")
    if n_windows is not None:
        as_whole_number("n_windows", n_windows, 1, MINUTES_PER_DAY)
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
        # a window without requests replays all of them
        rows = np.flatnonzero(within if within.any() else weights > 0)
        tables[window] = RequestTable(values[rows], costs[rows], weights[rows], rows)
    return [tables[w] for w in range(n_windows)], n_windows


def price_scale(values: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Return the order of magnitude of useful prices (G,), currency per core-second.

    It is the mean range of a request's values over the mean range of its costs on each cluster.
    """
    spread = np.ptp(values, axis=1).mean()
    return np.maximum(spread, 1e-9) / np.maximum(np.ptp(costs, axis=1).mean(axis=0), 1e-9)
