"""The balancers that are compared, by name, and what they are commissioned on: a sample of requests and past days.

Shapes: M kinds of request, J joint actions, G clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.days.policies import release_margin, two_passes
from benchmarks.days.telemetry import system_log, usual_prices
from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.allocation import distinct_actions
from marca_env.traffic.control import Balancer
from marca_env.traffic.day_simulator import replay
from marca_env.traffic.days import SALE_FACTOR, DayScenario, sale_with_start
from marca_env.traffic.policies import PricedPolicy
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.workload import Traffic, daily_traffic
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.units import MINUTES_PER_DAY
from mpc import (
    BisectionBalancer,
    FeedbackBalancer,
    FeedbackSettings,
    PrimalDualBalancer,
    SliceBalancer,
    StaticBalancer,
    SystemModel,
    TrafficForecaster,
)

if TYPE_CHECKING:
    from mpc import SystemModel, TrafficForecaster

COMMISSIONING_REQUESTS = 240
TELEMETRY_SHARE = 2.5
"""Distinct requests of the telemetry, over those of the sample."""
CLAIRVOYANT = "clairvoyant"
METHODS: dict[str, dict[str, Any]] = {
    "static": {},
    "bisection": {},
    "feedback": {},
    "primal-dual": {},
    "slices": {},
    "mpc": {},
    "mpc-real-time": {"mode": "real_time"},
    "mpc-announced": {},
    "mpc-shooting": {"method": "shooting"},
    "mpc-lbfgsb": {"method": "lbfgsb"},
    "mpc-slsqp": {"method": "slsqp"},
    "mpc-gradient": {"method": "gradient"},
    "mpc-cem": {"method": "cem"},
    CLAIRVOYANT: {},
}
"""Name → what the model-predictive ones are built with."""
MARGINS = (0.005, 0.01, 0.015, 0.02)
RATES = (0.1, 0.3, 1.0)
"""Steps of primal–dual that are tried, in usual prices."""


@dataclass
class Commissioned:
    """What is known before the day that judges: a sample of requests, past days, and the system model.

    Args:
        engine: of the scenario.
        seed: of the sample, the days and the fit.
        requests: size of the sample.
        days: of telemetry that the model is fitted on.
        epochs: of the fit.
        members: of the model's ensemble.
        horizon: steps ahead that the report of the fit looks at, beside one.
        tuning: minutes of each of the two days that gains and margins are tuned on.
        model: instead of one that is fitted.
    """

    engine: Engine
    seed: int = 0
    requests: int = COMMISSIONING_REQUESTS
    days: int = 4
    epochs: int = 150
    members: int = 1
    horizon: int = 10
    tuning: int = 720
    given: SystemModel | None = None

    def __post_init__(self) -> None:
        self._forecasters: dict[int, TrafficForecaster] = {}

    @property
    def scenario(self) -> Scenario:
        return self.engine.scenario

    @cached_property
    def pool(self) -> RequestPool:
        return self.engine.pool(self.requests, seed=self.seed)

    @cached_property
    def actions(self) -> np.ndarray:
        return distinct_actions(self.pool)

    @cached_property
    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Values (M,J') and costs (M,J',G) of the sample."""
        return self.pool.outcomes["revenue"][:, self.actions], self.pool.costs[:, self.actions]

    @cached_property
    def model(self) -> SystemModel:
        if self.given is not None:
            return self.given
        return self.fitted(self.telemetry())

    def telemetry(self) -> pd.DataFrame:
        """A system log of generated days; more requests pass through the system than are kept in the sample."""
        pool = self.engine.pool(round(TELEMETRY_SHARE * self.requests), seed=self.seed + 1)
        return system_log(pool, days=self.days, seed=self.seed)

    def fitted(self, log: pd.DataFrame, clusters: tuple[str, ...] | None = None) -> SystemModel:
        """A system model of a log, with the report of its errors on the log's end."""

        options: dict[str, Any] = {
            "epochs": self.epochs,
            "members": self.members,
            "horizons": sorted({1, self.horizon}),
        }
        return SystemModel.fit(log, clusters=clusters or self.scenario.cluster_names, seed=self.seed, **options)

    @cached_property
    def past_days(self) -> list[Traffic]:
        """Generated days that nobody is judged on."""
        rng = np.random.default_rng([self.seed, 41])
        return [daily_traffic(self.scenario, rng) for _ in range(3)]

    @cached_property
    def scale(self) -> np.ndarray:
        """(G,) usual prices."""
        return usual_prices(self.pool, float(self.past_days[0].qps.mean()))

    @property
    def release_margin(self) -> float:
        """See :func:`benchmarks.days.policies.release_margin`."""
        return release_margin(self.scenario)

    @cached_property
    def feedback(self) -> Any:
        """Those of :data:`benchmarks.days.policies.GAINS` that earned most, see :func:`benchmarks.days.policies.two_passes`."""

        def settings(gains: tuple[float, ...]) -> Any:
            p, i, m = gains
            scale = tuple(self.scale.tolist())
            return FeedbackSettings(
                proportional=p, integral=i, margin=m, release_margin=self.release_margin, scale=scale
            )

        return settings(two_passes(lambda some: self._best(some, lambda g: _feedback(settings(g)))))

    @cached_property
    def rate(self) -> np.ndarray:
        """(G,) step of primal–dual, the one of :data:`RATES` that earned most."""

        return self._best(RATES, lambda rate: PrimalDualBalancer(rate * self.scale)) * self.scale

    @cached_property
    def margin(self) -> float:
        """Share of the budget that the model-predictive ones leave, the one of :data:`MARGINS` that earned most."""

        morning = self.past_days[0].clipped(self.tuning)
        return self._best(MARGINS, lambda m: self._mpc(TrafficForecaster(), margin=m), [morning])

    def _best(self, candidates: Any, build: Callable[[Any], Balancer], days: Sequence[Traffic] = ()) -> Any:
        """The candidate that earned most; by default on the morning of a past day and on a short day with a sale."""
        sale = sale_with_start(self.scenario, 10_000 + self.seed, self.tuning, SALE_FACTOR)[0]
        days = days or (self.past_days[0].clipped(self.tuning), sale)

        def earned(candidate: Any) -> float:
            total = 0.0
            for k, day in enumerate(days):
                counts = draw_arrivals(self.pool, day, 5_000 + 10 * self.seed + k)
                policy = PricedPolicy("trial", *self._whole, build(candidate), self.actions)
                total += float(replay(policy, self.pool, day, counts)["revenue"].sum())
            return total

        candidates = list(candidates)
        return candidates[int(np.argmax([earned(c) for c in candidates]))]

    @property
    def _whole(self) -> tuple[np.ndarray, np.ndarray]:
        return self.pool.outcomes["revenue"], self.pool.costs

    def windows(self, pool: RequestPool) -> dict[str, Any]:
        """Weights and parts of the day of a pool's requests, as balancers that replay them take them."""
        if "w" not in self.scenario.feature_names:
            return {"weights": pool.weights}
        column = self.scenario.feature_names.index("w")
        size = int(self.scenario.feature_sizes[column])
        return {"weights": pool.weights, "windows": pool.states[:, column], "n_windows": size}

    def forecaster(self, course: DayScenario, announced: bool = False) -> TrafficForecaster:
        """Fitted on the days before the course's, or on generated ones where there are none; a fresh one each time."""

        days = course.traffic.history_days()
        key = hash(days.tobytes())
        if key not in self._forecasters:
            past = days if len(days) else np.stack([d.qps for d in self.past_days])
            self._forecasters[key] = TrafficForecaster.fit(past)
        found = self._forecasters[key].copy()
        if announced and course.announced is not None:
            usual = np.zeros(MINUTES_PER_DAY) if found.profile is None else found.profile
            return TrafficForecaster(found.settings, profile=usual + course.announced, period=found.period)
        return found

    def balancer(self, name: str, course: DayScenario, settings: Mapping[str, Any] | None = None) -> Balancer:
        """A balancer by its name in :data:`METHODS`, the clairvoyant apart.

        Args:
            name: the method.
            course: the day to come; only its past, and what was announced, is looked at.
            settings: of the model-predictive ones, see :class:`mpc.MPCSettings`.

        Raises:
            InputError: an unknown method or setting.
        """

        check_methods([name])
        values, costs = self.tables
        if name == "static":
            return StaticBalancer(usual_prices(self.pool, self.scenario.peak_qps))
        if name == "bisection":
            spare, sample = self.release_margin, self.windows(self.pool)
            return BisectionBalancer(values, costs, tolerance=3e-3, sweeps=3, release_margin=spare, **sample)
        if name == "feedback":
            return _feedback(self.feedback)
        if name == "primal-dual":
            return PrimalDualBalancer(self.rate)
        if name == "slices":
            return self._slices(course)
        announced = name == "mpc-announced"
        chosen = {**METHODS[name], **(settings or {})}
        if "margin" not in chosen:  # tuning it takes a while
            chosen["margin"] = self.margin
        return self._mpc(self.forecaster(course, announced), **chosen)

    def _mpc(self, forecaster: TrafficForecaster, **chosen: Any) -> Balancer:
        from mpc import MPCBalancer

        return MPCBalancer(self.model, forecaster=forecaster, **{"release_margin": self.release_margin, **chosen})

    def _slices(self, course: DayScenario) -> Balancer:
        days, (values, costs) = course.traffic.history_days(), self.tables
        past = days[-1] if len(days) else self.past_days[0].qps
        return SliceBalancer.search(
            values, costs, past, self.scenario.budgets, seed=self.seed, **self.windows(self.pool)
        )


def _feedback(settings: Any) -> Balancer:
    return FeedbackBalancer(settings)


def check_methods(names: Any) -> None:
    """Refuse a method that there is not.

    Raises:
        InputError: the message names the nearest one.
    """
    for name in names:
        if name not in METHODS:
            raise InputError(unknown_option("method", name, METHODS))
