"""Serving with prices: who gets which joint action, what that costs the clusters, and the best it could have earned.

The rule is a* = argmax_a Q(s,a) − Σ_g λ_g C_g(s,a) (Eq. 6, arXiv 2512.24325). :func:`dual_bound` is the
Lagrangian dual of Eq. 2–5: no allocation within the budgets earns more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from marca_env.cluster import ClusterModel, ClusterReading, ClusterState
from marca_env.errors import InputError
from marca_env.scenario import Scenario

_CHUNK_FLOATS = 64_000  # temporaries of a chunk stay within the second-level cache
MINUTES_PER_DAY = 1440


def allocate(values: np.ndarray, costs: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """The joint action of each request under the prices, Eq. 6; ties go to the cheapest, then to the lowest index.

    Args:
        values: (M,J) currency per request.
        costs: (M,J,G) core-seconds per request.
        prices: (G,) currency per core-second, not negative.

    Returns:
        (M,) int64 indices into the joint actions.

    Raises:
        InputError: shapes that do not fit together, or prices that are negative or not finite.
    """
    prices = _checked_prices(values, costs, prices).astype(np.float32)
    n, n_joint = values.shape
    chosen = np.empty(n, dtype=np.int64)
    step = max(1, _CHUNK_FLOATS // n_joint)
    for start in range(0, n, step):
        part = slice(start, start + step)
        score = _score(values[part], costs[part], prices)
        best = score.argmax(axis=1)
        tied = score == score[np.arange(len(score)), best, None]
        several = np.flatnonzero(tied.sum(axis=1) > 1)
        if len(several):
            total = costs[part][several].sum(axis=-1)
            best[several] = np.where(tied[several], total, np.inf).argmin(axis=1)
        chosen[part] = best
    return chosen


def dual_bound(
    values: np.ndarray,
    costs: np.ndarray,
    counts: np.ndarray,
    budgets: np.ndarray,
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 500,
) -> tuple[float, np.ndarray]:
    """Least upper bound that prices give on the revenue of a period: min_{λ≥0} Σ_i n_i max_a(Q − λC) + λ·budget.

    The function is convex and piecewise linear in the G prices; cutting planes close in on its minimum until the
    gap between the best value seen and the model of cuts is below ``tolerance`` of the value.

    Args:
        values: (M,J) currency per request.
        costs: (M,J,G) core-seconds per request.
        counts: (M,) requests of each kind in the period.
        budgets: (G,) core-seconds per *period*.
        tolerance: largest relative gap.
        max_iterations: evaluations of the dual before giving up.

    Returns:
        The bound (currency per period) and the prices (G,) that reach it.

    Raises:
        InputError: shapes that do not fit together, or no allocation that fits the budgets.
        RuntimeError: the gap did not close within ``max_iterations``.
    """
    values, costs, counts, budgets = _checked_problem(values, costs, counts, budgets)
    scale = _price_scale(values, costs, counts, budgets)  # (G,) the unit in which prices are searched
    box, best, cuts = 2.0, (np.inf, np.zeros(len(budgets))), _Cuts(len(budgets))
    point = np.zeros(len(budgets))
    for _ in range(max_iterations):
        value, slope = _dual(values, costs, counts, budgets, point * scale)
        best = min(best, (value, point), key=lambda pair: pair[0])
        cuts.add(value, slope * scale, point)
        lower, point = cuts.minimum(box)
        if best[0] - lower <= tolerance * max(abs(best[0]), 1e-12):
            if not np.any(best[1] >= 0.999 * box):
                return float(best[0]), best[1] * scale
            if box > 1e9:
                break
            box *= 8.0
            _, point = cuts.minimum(box)
    else:
        raise RuntimeError(f"dual bound: gap still open after {max_iterations} evaluations; raise max_iterations")
    least = np.einsum("m,mg->g", counts, costs.min(axis=1))
    raise InputError(
        f"budgets {budgets.tolist()} core-seconds cannot be met: the cheapest actions use {least.tolist()}; "
        "raise the budgets"
    )


class _Cuts:
    """Supporting planes of the dual and the minimum of their upper envelope over a box."""

    def __init__(self, n_prices: int) -> None:
        self.rows: list[np.ndarray] = []
        self.limits: list[float] = []
        self.n_prices = n_prices
        self.first = 0.0

    def add(self, value: float, slope: np.ndarray, point: np.ndarray) -> None:
        if not self.rows:
            self.first = value
        self.rows.append(np.append(slope, -1.0))  # value + slope·(λ − point) ≤ t
        self.limits.append(float(slope @ point) - value)

    def minimum(self, box: float) -> tuple[float, np.ndarray]:
        from scipy.optimize import linprog

        size = max(1.0, abs(self.first))  # the solver's tolerances are absolute
        rows = np.array(self.rows)
        rows[:, :-1] /= size
        bounds = [(0.0, box)] * self.n_prices + [(None, None)]
        cost = np.append(np.zeros(self.n_prices), 1.0)
        result = linprog(cost, A_ub=rows, b_ub=np.array(self.limits) / size, bounds=bounds, method="highs")
        if not result.success:
            raise RuntimeError(f"dual bound: the linear program of cuts failed: {result.message}")
        return float(result.fun) * size, result.x[:-1]


def _dual(
    values: np.ndarray, costs: np.ndarray, counts: np.ndarray, budgets: np.ndarray, prices: np.ndarray
) -> tuple[float, np.ndarray]:
    """Value of the dual at ``prices`` and a subgradient (G,)."""
    n, n_joint = values.shape
    total, used = 0.0, np.zeros(len(prices))
    step = max(1, _CHUNK_FLOATS // n_joint)
    exact = prices.astype(values.dtype)
    for start in range(0, n, step):
        part = slice(start, start + step)
        rows = np.arange(min(step, n - start))
        best = _score(values[part], costs[part], exact).argmax(axis=1)
        spent = costs[part][rows, best].astype(np.float64)  # (m,G)
        total += float(counts[part] @ (values[part][rows, best].astype(np.float64) - spent @ prices))
        used += counts[part] @ spent
    return total + float(prices @ budgets), budgets - used


def _score(values: np.ndarray, costs: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Q − Σ λ_g C_g, shape (m,J)."""
    score = values - costs[..., 0] * prices[0]
    for g in range(1, len(prices)):
        score -= costs[..., g] * prices[g]
    return score


def _price_scale(values: np.ndarray, costs: np.ndarray, counts: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """A price (G,) at which what the actions may cost is worth about all that could be earned."""
    worth = float(counts @ np.abs(values).max(axis=1, initial=0.0).astype(np.float64)) or 1.0
    most = np.einsum("m,mg->g", counts, costs.max(axis=1, initial=0.0).astype(np.float64))
    size = np.where(budgets > 0, budgets, most)
    return worth / np.where(size > 0, size, 1.0)


def _checked_prices(values: np.ndarray, costs: np.ndarray, prices: np.ndarray) -> np.ndarray:
    prices = np.asarray(prices, dtype=np.float64)
    if values.ndim != 2 or costs.shape != (*values.shape, len(np.atleast_1d(prices))) or prices.ndim != 1:
        raise InputError(
            f"values {values.shape}, costs {costs.shape} and prices {prices.shape} do not fit; "
            "expected (requests, actions), (requests, actions, clusters) and (clusters,)"
        )
    if not np.all(np.isfinite(prices)) or np.any(prices < 0):
        raise InputError(f"prices are {prices.tolist()}; they must be finite and not negative")
    return prices


def _checked_problem(
    values: np.ndarray, costs: np.ndarray, counts: np.ndarray, budgets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    values, costs = np.asarray(values), np.asarray(costs)
    counts, budgets = np.asarray(counts, dtype=np.float64), np.asarray(budgets, dtype=np.float64)
    _checked_prices(values, costs, np.zeros(len(budgets)))
    if counts.shape != values.shape[:1] or np.any(counts < 0):
        raise InputError(f"counts must be one non-negative number per request, {values.shape[:1]}; got {counts.shape}")
    if np.any(budgets < 0) or not np.all(np.isfinite(budgets)):
        raise InputError(f"budgets are {budgets.tolist()}; they must be finite and not negative")
    asked = counts > 0  # a kind of request that never comes cannot change the bound
    return values[asked], costs[asked], counts[asked], budgets


@dataclass(frozen=True)
class RequestPool:
    """Kinds of request, with the true outcome and cost of every joint action. M requests, J actions, G clusters."""

    scenario: Scenario
    states: np.ndarray
    """(M,F) int, columns in the scenario's order of features."""
    outcomes: Mapping[str, np.ndarray]
    """name → (M,J) expected per request: ``revenue`` (currency), and perhaps clicks, impressions, gmv."""
    costs: np.ndarray
    """(M,J,G) core-seconds per request."""
    degradation_cost: Callable[[np.ndarray], np.ndarray]
    """levels (G,) int → f(D) (G,), core-seconds per request that the levels save."""
    weights: np.ndarray | None = None
    """(M,) how often each kind comes, in any unit; ``None``: all alike."""

    def __post_init__(self) -> None:
        shape = (len(self.states), self.scenario.n_joint_actions)
        for name, table in self.outcomes.items():
            if table.shape != shape:
                raise InputError(f"pool outcome {name!r} has shape {table.shape}; expected {shape}")
        if self.costs.shape != (*shape, len(self.scenario.clusters)):
            raise InputError(
                f"pool costs have shape {self.costs.shape}; expected {(*shape, len(self.scenario.clusters))}"
            )
        if self.weights is not None and (self.weights.shape != shape[:1] or np.any(self.weights < 0)):
            raise InputError(f"pool weights must be one non-negative number per request, shape {shape[:1]}")

    def chances(self, minute: int) -> np.ndarray:
        """(M,) probability of each kind at ``minute`` of the day: those of the current time window, feature ``w``.

        All kinds count where the scenario has no such feature, or the pool none of the window's requests.
        """
        weights = np.ones(len(self.states)) if self.weights is None else self.weights.astype(np.float64)
        if "w" in self.scenario.feature_names:
            column = self.scenario.feature_names.index("w")
            window = minute % MINUTES_PER_DAY * int(self.scenario.feature_sizes[column]) // MINUTES_PER_DAY
            within = weights * (self.states[:, column] == window)
            weights = within if within.sum() > 0 else weights
        return weights / weights.sum()


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
    return rng.multinomial(rng.poisson(qps * seconds), pool.chances(minute))


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
    """(G,) undegraded Ĉ = load + f(D)·qps, core-seconds per second."""
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
) -> tuple[MinuteOutcome, ClusterState]:
    """Serve a period's requests with the degradation in force and let the clusters react.

    Args:
        pool: the kinds of request.
        chosen: (M,) joint action that was chosen for each kind.
        counts: (M,) requests of each kind.
        cluster_model: dynamics of the clusters.
        state: what the period before left.
        seconds: length of the period.

    Returns:
        The outcome of the period and the state it leaves. A request is lost when any cluster drops it.
    """
    ran = degrade(pool.scenario, chosen, state.degradation)
    rows, total = np.arange(len(ran)), int(counts.sum())
    qps = total / seconds
    demand = counts @ pool.costs[rows, ran].astype(np.float64) / seconds  # (G,)
    equivalent = demand + np.asarray(pool.degradation_cost(state.degradation), dtype=np.float64) * qps
    after, reading = cluster_model.step(state, demand, equivalent, seconds)
    kept = float(np.prod(1.0 - reading.dropped))
    sums = {name: kept * float(counts @ table[rows, ran].astype(np.float64)) for name, table in pool.outcomes.items()}
    outcome = MinuteOutcome(total, qps, sums, demand, equivalent, state.degradation, reading, kept)
    return outcome, after


def degrade(scenario: Scenario, chosen: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Joint action (M,) that really runs for each chosen one (M,) when cluster g is at level ``levels[g]``."""
    ran = np.asarray(chosen)
    for cluster, level in enumerate(levels):
        if level > 0:
            ran = scenario.degraded(cluster, int(level))[ran]
    return ran
