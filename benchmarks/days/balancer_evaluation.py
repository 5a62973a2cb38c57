"""Evaluation of balancers on the same day with the same arrivals, beside a clairvoyant and the dual bound.

All balancers decide with the same values and costs: only λ, the price of computation, differs. These are the true ones
unless the day makes costs drift, or the outcomes were recorded: then they are what the models expect. Balancers are
calibrated on another sample of requests, other arrivals and other days.
Shapes: T minutes, M kinds of request, J joint actions, G clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.days.balancers import CLAIRVOYANT, SECOND_DAY, build_balancer
from benchmarks.days.calibration import Calibration, expected_pool, replay_options
from benchmarks.evaluation.latency_summary import latency_summary
from benchmarks.suite.user_methods import user_object_name
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import AllocationTable
from marca_env.traffic.control import Balancer, ControlObservation
from marca_env.traffic.day_simulator import clairvoyant_bound, replay
from marca_env.traffic.days import DayScenario
from marca_env.traffic.policies import PricedPolicy
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.utilisation import overutilisation, utilisation
from marca_env.traffic.workload import Traffic
from marca_env.utils.units import MINUTES_PER_DAY, SECONDS_PER_MINUTE
from mpc import BisectionBalancer, MPCBalancer
from mpc.planning.planning_method import PlanResult

DAY_BEFORE = 30_000
"""Seed of the arrivals of the day before, less that of the day."""
JUDGE_SEED = 20_001
"""Seed of the test requests: no log, no model and no calibration uses them."""


class ClairvoyantBalancer:
    """A balancer that knows the next minute's arrivals, budget and true costs, and sets the least prices that fit.

    No price keeps the load within the budgets and uses much more of them. The prices are found by bisection, one
    cluster after the other, to a thousandth.

    Args:
        bisection: replays the test requests.
        counts: (T,M) arrivals.
        budgets: (T,G) core-seconds per second, divided by the drift of the costs.
        first_minute: minute of the day of the first row.
    """

    def __init__(
        self, bisection: BisectionBalancer, counts: np.ndarray, budgets: np.ndarray, first_minute: int
    ) -> None:
        self.bisection, self.counts, self.budgets, self.first_minute = bisection, counts, budgets, first_minute
        self.reset()

    def reset(self) -> None:
        """Return to the first minute."""
        self._minute = 0
        self._prices = np.zeros(self.budgets.shape[1])

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Return the prices (G,) of the next minute; the telemetry is not needed."""
        k, self._minute = self._minute, self._minute + 1
        counts = self.counts[k]
        if counts.sum() > 0:
            window = (self.first_minute + k) % MINUTES_PER_DAY * self.bisection.n_windows // MINUTES_PER_DAY
            allowance = self.budgets[k] * SECONDS_PER_MINUTE / counts.sum()
            self._prices = self.bisection.solve(allowance, window=window, start=self._prices, weights=counts)
        return self._prices.copy()


@dataclass
class BalancerEvaluation:
    """A day with its arrivals, on which balancers are evaluated."""

    calibration: Calibration
    """What the balancers are tuned and fitted on."""
    day: DayScenario
    pool: RequestPool
    """Test requests, on which the balancers are compared."""
    seed: int
    """Seed of the arrivals."""
    counts: np.ndarray = field(init=False)
    """(T,M) arrivals."""

    def __post_init__(self) -> None:
        self.counts = draw_arrivals(self.pool, self.day.traffic, self.seed)
        expected = expected_pool(self.calibration.engine, self.pool)
        self.table = AllocationTable.of_pool(expected)
        self._expected = expected.outcomes["revenue"], expected.costs

    @cached_property
    def clairvoyant_minutes(self) -> pd.DataFrame:
        """Minutes of the day under the clairvoyant."""
        return self._replay(CLAIRVOYANT, self._clairvoyant())

    @cached_property
    def priced(self) -> np.ndarray:
        """Whether the clairvoyant puts a price on computation, bool (T,G).

        Where it does not, the most expensive useful actions do not fill the budget.
        """
        return self.clairvoyant_minutes[[f"price_{c}" for c in self.pool.scenario.cluster_names]].to_numpy() > 0

    @cached_property
    def bound(self) -> float:
        """Upper bound on the revenue of any allocation within the budgets."""
        return clairvoyant_bound(self.pool, self.counts, self.day.changes)

    def run(
        self, name: Any, settings: Mapping[str, Any] | None = None, on_minute: Callable[[], None] | None = None
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Replay the day under a method.

        Args:
            name: one of :data:`benchmarks.days.balancers.METHODS`, or a user's balancer: its dotted path, class or
                object.
            settings: settings of the model-predictive methods.
            on_minute: called after each minute.

        Returns:
            The minutes, and the score (:func:`score`) with ``bound_share`` and ``events``. Methods that plan also have
            ``plans``: the share of minutes whose plan converged, and the mean number of convex programs or rounds.
        """
        if isinstance(name, str) and name == CLAIRVOYANT:
            return self.clairvoyant_minutes, self._score(self.clairvoyant_minutes, {})
        balancer = build_balancer(name, self.calibration, self.day, settings)
        if isinstance(name, str) and name == SECOND_DAY and isinstance(balancer, MPCBalancer):
            balancer.learn(self._day_before(balancer))
            balancer.reset()
            balancer.events.clear()
        plans: list[PlanResult] = []

        def after_minute() -> None:
            if (result := getattr(balancer, "result", None)) is not None:
                plans.append(result)
            if on_minute is not None:
                on_minute()

        minutes = self._replay(user_object_name(name), balancer, after_minute)
        scores = self._score(minutes, dict(Counter(e.kind for e in getattr(balancer, "events", ()))))
        if plans:
            scores["plans"] = {
                "converged": sum(plan.converged for plan in plans) / len(minutes),
                "programs": float(np.mean([plan.iterations for plan in plans])),
            }
        return minutes, scores

    def _score(self, minutes: pd.DataFrame, events: dict[str, int]) -> dict[str, Any]:
        scores = score(minutes, self.pool.scenario.cluster_names, self.priced)
        return {**scores, "bound_share": scores["revenue"] / self.bound, "events": events}

    def _replay(self, name: str, balancer: Balancer, on_minute: Callable[[], None] | None = None) -> pd.DataFrame:
        policy = PricedPolicy(name, *self._expected, balancer, self.table.actions)
        return replay(policy, self.pool, self.day.traffic, self.counts, on_minute, self.day.changes)

    def _day_before(self, balancer: Balancer) -> pd.DataFrame:
        """Return the system log of the day before under a balancer, with the same kinds of request."""
        history, seed = self.day.traffic.history_days(), DAY_BEFORE + self.seed
        traffic = Traffic("day before", history[-1]) if len(history) else self.calibration.past_days[0]
        policy = PricedPolicy("day before", *self._expected, balancer, self.table.actions)
        return replay(policy, self.pool, traffic, draw_arrivals(self.pool, traffic, seed)).assign(day=0)

    def _clairvoyant(self) -> ClairvoyantBalancer:
        bisection = BisectionBalancer(
            self.table.values, self.table.costs, tolerance=1e-3, sweeps=3, **replay_options(self.pool)
        )
        changes = self.day.changes
        budgets = self.pool.scenario.budgets * changes.capacity / changes.cost
        return ClairvoyantBalancer(bisection, self.counts, budgets, self.day.traffic.first_minute)


def score(minutes: pd.DataFrame, clusters: tuple[str, ...], priced: np.ndarray) -> dict[str, Any]:
    """Score the minutes of a day.

    Args:
        minutes: rows of :func:`marca_env.traffic.day_simulator.replay`.
        clusters: G names.
        priced: (T,G) minutes in which computation has a price.

    Returns:
        ``mu`` and ``nu`` by cluster, and of ``all`` budgets together, over all minutes; ``priced_mu`` and
        ``priced_nu`` over the priced minutes; ``priced_share`` of the minutes; ``revenue``; ``travel``, the mean change
        of a price from minute to minute over its mean; ``degraded``, the share of the minutes with a degraded cluster;
        ``lost``, the share of the requests that the cluster which drops most has dropped; with a latency limit
        ``latency`` (:func:`benchmarks.evaluation.latency_summary.latency_summary`).
    """

    def table(name: str) -> np.ndarray:
        return minutes[[f"{name}_{c}" for c in clusters]].to_numpy(dtype=np.float64)  # (T,G)

    load, budget, prices = table("load"), table("budget"), table("price")
    scores: dict[str, Any] = {}
    for prefix, weights in (("", np.ones_like(budget)), ("priced_", priced.astype(np.float64))):
        total = float((budget * weights).sum())
        for name, share, used in (
            ("mu", utilisation(load, budget, weights), np.minimum(load, budget)),
            ("nu", overutilisation(load, budget, weights), np.maximum(load - budget, 0.0)),
        ):
            together = float((used * weights).sum() / total) if total > 0 else float("nan")
            scores[f"{prefix}{name}"] = dict(zip((*clusters, "all"), [*share.tolist(), together], strict=True))
    scores["priced_share"] = dict(
        zip((*clusters, "all"), [*priced.mean(0).tolist(), float(priced.mean())], strict=True)
    )
    moved, mean = np.abs(np.diff(prices, axis=0)).mean(axis=0), prices.mean(axis=0)
    scores["travel"] = float(np.divide(moved, mean, out=np.zeros_like(mean), where=mean > 0).mean())
    scores["revenue"] = float(minutes["revenue"].sum())
    scores["degraded"] = float((table("degradation") > 0).any(axis=1).mean())
    requests = minutes["requests"].to_numpy(dtype=np.float64)
    scores["lost"] = float((table("dropped").max(axis=1) @ requests) / max(requests.sum(), 1.0))
    if (latency := latency_summary(minutes)) is not None:
        scores["latency"] = latency
    return scores
