"""Upper bound on what any allocation earns: the Lagrangian dual of Eq. 2–5 (arXiv 2512.24325), by cutting planes.

The dual D(λ) = Σ_i n_i max_a(Q − λC) + λ·budget is convex and piecewise linear in the G prices. Every evaluation gives
a plane below it. A small linear program finds the lowest point of their envelope, where the dual is evaluated next.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import linprog

from marca_env.utils.errors import InputError

CHUNK_FLOATS = 64_000
"""Entries of (M,J) processed at once, so that temporaries stay within the second-level cache."""
_LARGEST_BOX = 1e7
_ROUNDING = 1e-7  # values and costs may be float32


def dual_bound(
    values: np.ndarray,
    costs: np.ndarray,
    counts: np.ndarray,
    budgets: np.ndarray,
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 500,
) -> tuple[float, np.ndarray]:
    """Return the least bound that prices give on a period's revenue: min_{λ≥0} Σ_i n_i max_a(Q − λC) + λ·budget.

    It equals the optimum of the linear relaxation. No allocation within the budgets earns more.

    Args:
        values: (M,J) currency per request.
        costs: (M,J,G) core-seconds per request.
        counts: (M,) requests of each kind in the period.
        budgets: (G,) core-seconds per *period*.
        tolerance: largest gap between the bound and the true minimum, relative to the bound.
        max_iterations: evaluations of the dual before giving up.

    Returns:
        The bound (currency per period) and the prices (G,) that reach it.

    Raises:
        InputError: shapes that do not fit together, or no allocation that fits the budgets.
        RuntimeError: the gap did not close within ``max_iterations``.
    """
    problem = _Problem.from_arrays(values, costs, counts, budgets)
    if not problem.feasible():
        least = np.einsum("m,mg->g", problem.counts, problem.costs.min(axis=1))
        raise InputError(
            f"budgets {problem.budgets.tolist()} core-seconds cannot be met: the cheapest actions use "
            f"{least.tolist()}; raise the budgets"
        )
    box, cuts = 2.0, _Cuts(problem.n_prices)
    while True:
        bound, point = _lowest(problem, cuts, box, tolerance, max_iterations)
        if np.all(point < 0.999 * box) or box >= _LARGEST_BOX:
            return bound * problem.worth, point * problem.unit
        box *= 8.0


@dataclass(frozen=True)
class _Problem:
    """Allocation problem of a period. Internally values are in units of ``worth`` and prices in units of ``unit``."""

    values: np.ndarray
    costs: np.ndarray
    counts: np.ndarray
    budgets: np.ndarray
    worth: float
    """Revenue without any limit; 1 if it is zero."""
    unit: np.ndarray
    """(G,) price at which the most that could be used costs as much as that revenue."""

    @classmethod
    def from_arrays(cls, values: np.ndarray, costs: np.ndarray, counts: np.ndarray, budgets: np.ndarray) -> _Problem:
        """Check the arguments of :func:`dual_bound` and choose the units."""
        values, costs = np.asarray(values), np.asarray(costs)
        counts, budgets = np.asarray(counts, dtype=np.float64), np.asarray(budgets, dtype=np.float64)
        checked_prices(values, costs, np.zeros(len(budgets)))
        if counts.shape != values.shape[:1] or np.any(counts < 0):
            raise InputError(f"counts have shape {counts.shape}; give one number ≥ 0 per request, {values.shape[:1]}")
        if np.any(budgets < 0) or not np.all(np.isfinite(budgets)):
            raise InputError(f"budgets are {budgets.tolist()}; give finite numbers that are not negative")
        present = counts > 0  # a kind of request that never comes cannot change the bound
        values, costs, counts = values[present], costs[present], counts[present]
        worth = float(counts @ np.abs(values).max(axis=1, initial=0.0)) or 1.0
        most = counts @ costs.max(axis=1, initial=0.0).astype(np.float64)  # (G,)
        return cls(values, costs, counts, budgets, worth, worth / np.where(most > 0, most, 1.0))

    @property
    def n_prices(self) -> int:
        """Number of prices G."""
        return len(self.budgets)

    def feasible(self) -> bool:
        """Return whether any allocation, fractional or not, fits: then the dual without values is never negative."""
        free = replace(self, values=np.broadcast_to(self.values.dtype.type(0), self.values.shape))
        ones = np.ones(self.n_prices)
        if np.all(free.dual(ones)[1] >= 0):  # the actions that are cheapest at equal prices fit
            return True
        return _lowest(free, _Cuts(self.n_prices), 1.0, 1e-3, 50)[0] >= -_ROUNDING

    def dual(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Return D at ``point`` and a subgradient (G,), in internal units."""
        prices = point * self.unit
        n, n_joint = self.values.shape
        total, used = 0.0, np.zeros(self.n_prices)
        step, rounded = max(1, CHUNK_FLOATS // n_joint), prices.astype(self.values.dtype)
        for start in range(0, n, step):
            part, rows = slice(start, start + step), np.arange(min(step, n - start))
            best = score_of(self.values[part], self.costs[part], rounded).argmax(axis=1)
            spent = self.costs[part][rows, best].astype(np.float64)  # (m,G)
            total += float(self.counts[part] @ (self.values[part][rows, best].astype(np.float64) - spent @ prices))
            used += self.counts[part] @ spent
        return (total + float(prices @ self.budgets)) / self.worth, (self.budgets - used) * self.unit / self.worth


@dataclass
class _Cuts:
    """Planes below the dual, and the lowest point of their envelope over a box of prices."""

    n_prices: int
    rows: list[np.ndarray] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    best: tuple[float, np.ndarray] | None = None

    def add(self, value: float, slope: np.ndarray, point: np.ndarray) -> None:
        """Add the plane through the dual's value and slope at a point."""
        self.rows.append(np.append(slope, -1.0))  # value + slope·(λ − point) ≤ t
        self.limits.append(float(slope @ point) - value)
        if self.best is None or value < self.best[0]:
            self.best = value, point

    def lowest(self, box: float) -> tuple[float, np.ndarray]:
        """Return the lowest value of the envelope over prices in [0, box], and its point (G,)."""
        # prices in units of the box keep the program well scaled however far it reaches
        rows = np.array(self.rows) * np.append(np.full(self.n_prices, box), 1.0)
        bounds = [(0.0, 1.0)] * self.n_prices + [(None, None)]
        target = np.append(np.zeros(self.n_prices), 1.0)
        for method in ("highs", "highs-ipm"):
            result = linprog(target, A_ub=rows, b_ub=np.array(self.limits), bounds=bounds, method=method)
            if result.success:
                return float(result.fun), box * np.clip(result.x[:-1], 0.0, 1.0)
        raise RuntimeError(f"dual bound: the linear program of cuts failed: {result.message}")


def _lowest(
    problem: _Problem, cuts: _Cuts, box: float, tolerance: float, max_iterations: int
) -> tuple[float, np.ndarray]:
    """Return the least value of the dual over the box, and its point (internal units); ``cuts`` serve larger boxes."""
    point = cuts.lowest(box)[1] if cuts.rows else np.zeros(problem.n_prices)
    for _ in range(max_iterations):
        cuts.add(*problem.dual(point), point)
        lower, point = cuts.lowest(box)
        assert cuts.best is not None
        if cuts.best[0] - lower <= max(tolerance * abs(cuts.best[0]), 1e-12):
            return cuts.best
    raise RuntimeError(f"dual bound: gap still open after {max_iterations} evaluations; raise max_iterations")


def score_of(values: np.ndarray, costs: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Return Q − Σ λ_g C_g, (M,J)."""
    score = values - costs[..., 0] * prices[0]
    for g in range(1, len(prices)):
        score -= costs[..., g] * prices[g]
    return score


def checked_prices(values: np.ndarray, costs: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Return the prices as floats.

    Raises:
        InputError: shapes that do not fit together, or prices that are negative or not finite.
    """
    prices = np.asarray(prices, dtype=np.float64)
    if values.ndim != 2 or costs.shape != (*values.shape, len(np.atleast_1d(prices))) or prices.ndim != 1:
        raise InputError(
            f"values {values.shape}, costs {costs.shape} and prices {prices.shape} do not fit; "
            "give (requests, actions), (requests, actions, clusters) and (clusters,)"
        )
    if not np.all(np.isfinite(prices)) or np.any(prices < 0):
        raise InputError(f"prices are {prices.tolist()}; give finite numbers that are not negative")
    return prices
