"""Balancers on the same day, arrival by arrival: the clairvoyant beside them, and what each is worth.

All decide with the same values and costs, which are true unless the course makes costs drift: what differs is λ. What
they are commissioned on is another sample of requests, other arrivals and other days than those that judge them.
Shapes: T minutes, M kinds of request, J joint actions, G clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.days.balancers import CLAIRVOYANT, Commissioned
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import distinct_actions
from marca_env.traffic.control import Balancer
from marca_env.traffic.day_simulator import clairvoyant_bound, replay
from marca_env.traffic.days import DayScenario
from marca_env.traffic.policies import PricedPolicy
from marca_env.traffic.simulated_system import SECONDS, draw_arrivals
from marca_env.utils.units import MINUTES_PER_DAY
from mpc import BisectionBalancer

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation
    from mpc import BisectionBalancer
    from mpc.planning.scp import PlanResult

JUDGE_SEED = 20_001
"""Seed of the requests that judge."""


class ClairvoyantBalancer:
    """Knows the coming minute's arrivals, budget and true costs: the smallest prices with which the load fits.

    No price keeps the load within the budgets and uses much more of them. Found by bisection, one cluster after the
    other, to a thousandth of the prices.

    Args:
        bisection: of the requests that judge.
        counts: (T,M) arrivals.
        budgets: (T,G) core-seconds per second, over what costs have drifted by.
        first_minute: of the day.
    """

    def __init__(
        self, bisection: BisectionBalancer, counts: np.ndarray, budgets: np.ndarray, first_minute: int
    ) -> None:
        self.bisection, self.counts, self.budgets, self.first_minute = bisection, counts, budgets, first_minute
        self.reset()

    def reset(self) -> None:
        self._minute = 0
        self._prices = np.zeros(self.budgets.shape[1])

    def update(self, observation: ControlObservation) -> np.ndarray:
        k, self._minute = self._minute, self._minute + 1
        asked = self.counts[k]
        if asked.sum() > 0:
            part = (self.first_minute + k) % MINUTES_PER_DAY * self.bisection.n_windows // MINUTES_PER_DAY
            allowance = self.budgets[k] * SECONDS / asked.sum()
            self._prices = self.bisection.solve(allowance, window=part, start=self._prices, weights=asked)
        return self._prices.copy()


@dataclass
class BalancerEvaluation:
    """A day with its arrivals, on which methods are judged.

    Attributes:
        priced: (T,G) whether computation has a price in the minute, by the clairvoyant: where it has none, the dearest
            useful actions do not fill the budget.
    """

    known: Commissioned
    course: DayScenario
    pool: RequestPool
    seed: int
    counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.counts = draw_arrivals(self.pool, self.course.traffic, self.seed)
        self.actions = distinct_actions(self.pool)

    @cached_property
    def best(self) -> pd.DataFrame:
        """The clairvoyant's minutes."""
        return self._replayed(CLAIRVOYANT, self._clairvoyant())

    @cached_property
    def priced(self) -> np.ndarray:
        return self.best[[f"price_{c}" for c in self.pool.scenario.cluster_names]].to_numpy() > 0

    @cached_property
    def bound(self) -> float:
        """No allocation within the budgets earns more."""
        return clairvoyant_bound(self.pool, self.counts, self.course.changes)

    def run(
        self, name: str, settings: Mapping[str, Any] | None = None, on_minute: Callable[[], None] | None = None
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        """The minutes of a method, and its score (:func:`score`), with ``plans`` of those that plan: the share of
        minutes whose plan had converged, and the mean number of convex programs or rounds."""
        if name == CLAIRVOYANT:
            return self.best, self._scored(self.best, {})
        balancer = self.known.balancer(name, self.course, settings)
        plans: list[PlanResult] = []

        def after() -> None:
            if (result := getattr(balancer, "result", None)) is not None:
                plans.append(result)
            if on_minute is not None:
                on_minute()

        minutes = self._replayed(name, balancer, after)
        found = self._scored(minutes, dict(Counter(e.kind for e in getattr(balancer, "events", ()))))
        if plans:
            found["plans"] = {
                "converged": sum(plan.converged for plan in plans) / len(minutes),
                "programs": float(np.mean([plan.iterations for plan in plans])),
            }
        return minutes, found

    def _scored(self, minutes: pd.DataFrame, events: dict[str, int]) -> dict[str, Any]:
        found = score(minutes, self.pool.scenario.cluster_names, self.priced)
        return {**found, "bound_share": found["revenue"] / self.bound, "events": events}

    def _replayed(self, name: str, balancer: Balancer, on_minute: Callable[[], None] | None = None) -> pd.DataFrame:
        policy = PricedPolicy(name, self.pool.outcomes["revenue"], self.pool.costs, balancer, self.actions)
        return replay(policy, self.pool, self.course.traffic, self.counts, on_minute, self.course.changes)

    def _clairvoyant(self) -> ClairvoyantBalancer:
        values, costs = self.pool.outcomes["revenue"][:, self.actions], self.pool.costs[:, self.actions]
        bisection = BisectionBalancer(values, costs, tolerance=1e-3, sweeps=3, **self.known.windows(self.pool))
        changes = self.course.changes
        budgets = self.pool.scenario.budgets * changes.capacity / changes.cost
        return ClairvoyantBalancer(bisection, self.counts, budgets, self.course.traffic.first_minute)


def score(minutes: pd.DataFrame, clusters: tuple[str, ...], priced: np.ndarray) -> dict[str, Any]:
    """What a method made of a day.

    Args:
        minutes: of :func:`marca_env.traffic.day_simulator.replay`.
        clusters: G names.
        priced: (T,G) minutes in which computation has a price.

    Returns:
        ``mu`` and ``nu`` by cluster and of ``all`` budgets together, over all minutes and (``priced_mu``,
        ``priced_nu``) over those in which computation has a price; ``priced_share`` of the minutes; ``revenue``;
        ``travel``, mean change of a price from minute to minute over its mean; ``degraded``, share of the minutes with
        a degraded cluster; ``lost``, share of the requests that were dropped at worst by a cluster.
    """

    def table(name: str) -> np.ndarray:
        return minutes[[f"{name}_{c}" for c in clusters]].to_numpy(dtype=np.float64)  # (T,G)

    load, budget, prices = table("load"), table("budget"), table("price")
    found: dict[str, Any] = {}
    for prefix, weight in (("", np.ones_like(budget)), ("priced_", priced.astype(np.float64))):
        found[f"{prefix}mu"] = _rates(np.minimum(load, budget), budget, weight, clusters)
        found[f"{prefix}nu"] = _rates(np.maximum(load - budget, 0.0), budget, weight, clusters)
    found["priced_share"] = dict(zip((*clusters, "all"), [*priced.mean(0).tolist(), float(priced.mean())], strict=True))
    moved, mean = np.abs(np.diff(prices, axis=0)).mean(axis=0), prices.mean(axis=0)
    found["travel"] = float(np.divide(moved, mean, out=np.zeros_like(mean), where=mean > 0).mean())
    found["revenue"] = float(minutes["revenue"].sum())
    found["degraded"] = float((table("degradation") > 0).any(axis=1).mean())
    asked = minutes["requests"].to_numpy(dtype=np.float64)
    found["lost"] = float((table("dropped").max(axis=1) @ asked) / max(asked.sum(), 1.0))
    return found


def _rates(used: np.ndarray, budget: np.ndarray, weight: np.ndarray, clusters: tuple[str, ...]) -> dict[str, Any]:
    """Mean of used/budget where ``weight`` (T,G) is one, by cluster; and of all together by the size of the budgets."""
    share = np.where(weight.sum(0) > 0, (used / budget * weight).sum(0) / np.maximum(weight.sum(0), 1.0), np.nan)
    whole = float((budget * weight).sum())
    together = float((used * weight).sum() / whole) if whole > 0 else float("nan")
    return dict(zip((*clusters, "all"), [*share.tolist(), together], strict=True))
