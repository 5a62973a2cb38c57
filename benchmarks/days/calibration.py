"""Calibration of policies and balancers before the simulated day: one sample of requests, one grid, one pair of days.

`marca simulate`, `marca balance` and the experiments all calibrate here. Nothing here sees that day or the
test requests: only the fitted models, another sample of requests, and generated days.
Shapes: M kinds of request, J joint actions, G clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from benchmarks.days.telemetry import system_log, usual_prices
from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.allocation import distinct_actions
from marca_env.traffic.control import Balancer
from marca_env.traffic.day_simulator import replay
from marca_env.traffic.days import SALE_FACTOR, sale_with_start
from marca_env.traffic.policies import PricedPolicy
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.workload import Traffic, daily_traffic
from marca_env.utils.errors import InputError
from marca_env.utils.progress import count_progress
from marca_env.utils.units import MINUTES_PER_DAY
from mpc import (
    BisectionBalancer,
    FeedbackBalancer,
    FeedbackSettings,
    MPCBalancer,
    PrimalDualBalancer,
    SliceBalancer,
    StaticBalancer,
    SystemModel,
    TrafficForecaster,
)

ValueFunction = Callable[[np.ndarray], np.ndarray]
"""States (M,F) → expected revenue of every joint action (M,J), currency."""
Candidate = TypeVar("Candidate")

SAMPLE = 240
"""Requests of the sample."""
TELEMETRY_SHARE = 2.5
"""Requests of the second sample, with which telemetry is simulated, over those of the first."""
GAIN_MARGINS = (0.0, 0.015, 0.03)
MARGINS = (0.005, 0.01, 0.015, 0.02)
"""Margins below the budget of feedback, and of MPC. Overload protection degrades a cluster 2 % above its budget and
releases it 2 % below, so margins act up to about that size; wider ones leave too much of the budget unused, even where
they earn a little more on the days of tuning. Feedback reacts a minute late and needs the wider ones."""
PROPORTIONAL, INTEGRAL = (0.2, 0.4, 0.8), (0.0, 0.02)
"""Gains of feedback: proportional gains in doubling steps, without and with an integral gain."""
RATES = (0.1, 0.3, 1.0)
"""Steps of primal–dual, in usual prices."""
Gains = tuple[float, float, float]
"""Proportional gain, integral gain, margin."""


def gain_grid(margins: Sequence[float] = GAIN_MARGINS, proportional: Sequence[float] = PROPORTIONAL) -> list[Gains]:
    """Return the settings that feedback is tuned over: all gains, each with every margin."""
    return [(p, i, m) for p in proportional for i in INTEGRAL for m in margins]


def two_passes(
    best: Callable[[list[tuple[float, ...]]], tuple[float, ...]], grid: Sequence[tuple[float, ...]]
) -> tuple[float, ...]:
    """Search a grid of gains and margins with fewer trials than it has candidates.

    The first pass compares all gains with the middle margin, the second all margins with the gains that won.

    Args:
        best: returns the best of some candidates.
        grid: candidates; the last number of each is the margin.

    Returns:
        The candidate that won.
    """
    margins = sorted({margin for *_, margin in grid})
    middle = margins[len(margins) // 2]
    *gains, _ = best([candidate for candidate in grid if candidate[-1] == middle])
    return best([(*gains, margin) for margin in margins])


def release_margin(scenario: Scenario) -> float:
    """Return the share of the budget that balancers leave free while a cluster is degraded.

    It is a little more than overload protection asks before it lowers the degradation level.
    """
    return 1.02 - scenario.protection.release


def expected_pool(engine: Engine, pool: RequestPool) -> RequestPool:
    """Return the pool with what the models expect in place of what was recorded, which no policy knows."""
    if engine.records is None:
        return pool
    revenue, costs = engine.table(pool.states)
    return dataclasses.replace(pool, outcomes={"revenue": revenue}, costs=costs)


def replay_options(pool: RequestPool) -> dict[str, Any]:
    """Return the weights and time windows of a pool's requests, as options of balancers that replay requests."""
    if pool.time_windows is None:
        return {"weights": pool.weights}
    windows, n_windows = pool.time_windows
    return {"weights": pool.weights, "windows": windows, "n_windows": n_windows}


def _count_nothing(n: int = 1) -> None:
    """Count nothing."""


@dataclass
class Calibration:
    """A sample of requests and generated days, and all that is tuned or fitted on them.

    Each property is computed when it is first used.
    """

    engine: Engine
    """Fitted models of the scenario."""
    seed: int = 0
    """Seed of the sample, the days and the fit."""
    requests: int = SAMPLE
    """Size of the sample."""
    days: int = 4
    """Days of telemetry that the system model is fitted on."""
    epochs: int = 150
    """Passes of the fit."""
    members: int = 1
    """Models in the system model's ensemble."""
    horizon: int = 10
    """Steps ahead whose errors the report of the fit holds, beside one step."""
    tuning: int = 720
    """Minutes of each of the two days that gains, rates and margins are tuned on."""
    values: ValueFunction | None = None
    """Values that the policy expects; ``None``: those of the revenue model."""
    given_model: SystemModel | None = None
    """System model to use; ``None``: fit one on simulated telemetry."""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """Other options of :meth:`mpc.SystemModel.fit`, such as ``hidden``."""
    progress: bool = False
    """Whether long parts show their progress."""
    _forecasters: dict[bytes, TrafficForecaster] = field(default_factory=dict, init=False, repr=False)

    def with_values(self, values: ValueFunction) -> Calibration:
        """Return the same calibration for a policy that expects other values."""
        return dataclasses.replace(self, values=values)

    @property
    def scenario(self) -> Scenario:
        """Scenario of the engine."""
        return self.engine.scenario

    # -- the sample ------------------------------------------------------------------------------------------------
    @cached_property
    def pool(self) -> RequestPool:
        """The sample, with the revenue and cost that the policy expects."""
        return self._sample(self.requests, self.seed)

    def _sample(self, requests: int, seed: int) -> RequestPool:
        pool = expected_pool(self.engine, self.engine.pool(requests, seed=seed))
        if self.values is None:
            return pool
        return dataclasses.replace(pool, outcomes={"revenue": self.values(pool.states)})

    @cached_property
    def actions(self) -> np.ndarray:
        """Distinct joint actions (J',) of the sample."""
        return distinct_actions(self.pool)

    @cached_property
    def static_action(self) -> int:
        """Joint action of the greatest mean revenue among those that fit the budgets at the peak.

        Raises:
            InputError: no joint action fits.
        """
        used = self._mean_costs() * self.scenario.peak_qps  # (J,G)
        fits = (used <= self.scenario.budgets).all(axis=1)
        if not fits.any():
            short = (used / self.scenario.budgets).max(axis=1).min()
            raise InputError(
                f"scenario {self.scenario.name!r}: at {self.scenario.peak_qps:g} requests per second even the cheapest "
                f"joint action needs {short:.2f} times the budget; raise the budgets or lower peak_qps"
            )
        revenue = np.average(self.pool.outcomes["revenue"], axis=0, weights=self.pool.weights)
        return int(np.where(fits, revenue, -np.inf).argmax())

    def _mean_costs(self) -> np.ndarray:
        """Return the mean cost (J,G) of a request.

        Where the shares of the sites change through the day, it is that of the time window that costs each cluster
        most.
        """
        options, costs = replay_options(self.pool), self.pool.costs
        weights = np.ones(len(costs)) if self.pool.weights is None else self.pool.weights
        if self.scenario.site is None or "windows" not in options:
            return np.average(costs, axis=0, weights=weights)
        windows = options["windows"]
        return np.max(
            [np.average(costs[windows == w], axis=0, weights=weights[windows == w]) for w in np.unique(windows)], axis=0
        )

    @cached_property
    def truncation_actions(self) -> np.ndarray:
        """Joint actions that differ from the static one in the last decision only: the choices of DCAF."""
        actions = self.scenario.joint_actions
        return np.flatnonzero((actions[:, :-1] == actions[self.static_action, :-1]).all(axis=1))

    # -- days ------------------------------------------------------------------------------------------------------
    @cached_property
    def past_days(self) -> list[Traffic]:
        """Three generated days, none of which is used in comparisons."""
        rng = np.random.default_rng([self.seed, 41])
        return [daily_traffic(self.scenario, rng) for _ in range(3)]

    @cached_property
    def usual_prices(self) -> np.ndarray:
        """Prices (G,) that fit the budgets at the mean traffic of a past day, currency per core-second."""
        return usual_prices(self.pool, float(self.past_days[0].qps.mean()))

    @cached_property
    def _tuning_days(self) -> list[tuple[Traffic, np.ndarray]]:
        """The start of a past day, and a short day with a flash sale, each with its arrivals (T,M)."""
        sale = sale_with_start(self.scenario, 10_000 + self.seed, self.tuning, SALE_FACTOR)[0]
        days = self.past_days[0].clipped(self.tuning), sale
        return [(day, draw_arrivals(self.pool, day, 5_000 + 10 * self.seed + k)) for k, day in enumerate(days)]

    def _count(self, label: str, total: int) -> AbstractContextManager[Callable[..., None]]:
        """Return a counter of ``total`` units of work, which shows them if ``progress`` says so."""
        return count_progress(label, total) if self.progress else nullcontext(_count_nothing)

    def best(
        self,
        candidates: Sequence[Candidate],
        build: Callable[[Candidate], Balancer],
        days: slice = slice(None),
        label: str = "Tuning",
    ) -> Candidate:
        """Return the candidate whose balancer earns most on the two days of tuning, or on one of them.

        ``label`` names the work for the progress.
        """
        if len(candidates) == 1:
            return candidates[0]

        def revenue(candidate: Candidate) -> float:
            total = 0.0
            for day, counts in tuning_days:
                balancer = build(candidate)
                policy = PricedPolicy("trial", self.pool.outcomes["revenue"], self.pool.costs, balancer, self.actions)
                total += float(replay(policy, self.pool, day, counts)["revenue"].sum())
                advance()
            return total

        tuning_days = self._tuning_days[days]
        with self._count(label, len(candidates) * len(tuning_days)) as advance:
            return candidates[int(np.argmax([revenue(candidate) for candidate in candidates]))]

    # -- what is tuned and fitted ----------------------------------------------------------------------------------
    @property
    def release_margin(self) -> float:
        """See :func:`release_margin`."""
        return release_margin(self.scenario)

    @cached_property
    def feedback(self) -> FeedbackSettings:
        """Settings of :func:`gain_grid` with which feedback earns most, found in :func:`two_passes`."""

        def settings(gains: tuple[float, ...]) -> FeedbackSettings:
            proportional, integral, margin = gains
            return FeedbackSettings(
                proportional=proportional,
                integral=integral,
                margin=margin,
                release_margin=self.release_margin,
                scale=tuple(self.usual_prices.tolist()),
            )

        def best(candidates: list[tuple[float, ...]]) -> tuple[float, ...]:
            return self.best(candidates, lambda gains: FeedbackBalancer(settings(gains)), label="Tuning feedback")

        return settings(two_passes(best, gain_grid(GAIN_MARGINS, PROPORTIONAL)))

    @cached_property
    def rate(self) -> np.ndarray:
        """Step (G,) of primal–dual, the one of :data:`RATES` that earns most."""

        def build(rate: float) -> Balancer:
            return PrimalDualBalancer(rate * self.usual_prices)

        return self.best(RATES, build, label="Tuning primal–dual") * self.usual_prices

    @cached_property
    def margin(self) -> float:
        """Margin below the budget with which MPC earns most on the first day of tuning, one of :data:`MARGINS`."""

        def build(margin: float) -> Balancer:
            return self.mpc(TrafficForecaster(), margin=margin)

        return self.best(MARGINS, build, slice(1), label="Tuning the margin of MPC")

    @cached_property
    def model(self) -> SystemModel:
        """The system model of MPC."""
        return self.fit_model(self.telemetry()) if self.given_model is None else self.given_model

    def telemetry(self) -> pd.DataFrame:
        """Simulate a system log of generated days; its requests are another sample than the one for tuning."""
        pool = self._sample(round(TELEMETRY_SHARE * self.requests), self.seed + 1)
        with self._count("Simulating telemetry, days", self.days) as advance:
            return system_log(pool, days=self.days, seed=self.seed, on_day=advance)

    def fit_model(self, log: pd.DataFrame, clusters: tuple[str, ...] | None = None) -> SystemModel:
        """Fit a system model on a log; its report holds the errors on the end of the log."""
        with self._count("Fitting the system model, epochs", self.epochs) as advance:
            return SystemModel.fit(
                log,
                clusters=clusters or self.scenario.cluster_names,
                seed=self.seed,
                epochs=self.epochs,
                members=self.members,
                horizons=sorted({1, self.horizon}),
                progress=lambda epoch, loss: advance(),
                **self.model_options,
            )

    # -- balancers -------------------------------------------------------------------------------------------------
    def forecaster(self, history: np.ndarray, announced: np.ndarray | None = None) -> TrafficForecaster:
        """Return a new forecaster of the traffic.

        Args:
            history: (days,1440) requests per second of the days before; without any, generated days are used.
            announced: (1440,) announced log of the traffic over the usual one.
        """
        past = history if len(history) else np.stack([day.qps for day in self.past_days])
        key = past.tobytes()
        if key not in self._forecasters:
            self._forecasters[key] = TrafficForecaster.fit(past)
        forecaster = self._forecasters[key].copy()
        if announced is None:
            return forecaster
        usual = np.zeros(MINUTES_PER_DAY) if forecaster.profile is None else forecaster.profile
        return TrafficForecaster(forecaster.settings, profile=usual + announced, period=forecaster.period)

    def mpc(self, forecaster: TrafficForecaster, **settings: Any) -> MPCBalancer:
        """Return MPC around the system model; ``settings`` are fields of :class:`mpc.MPCSettings`."""
        return MPCBalancer(self.model, forecaster=forecaster, **{"release_margin": self.release_margin, **settings})

    def bisection(self, actions: np.ndarray) -> BisectionBalancer:
        """Return DCAF's balancer, which replays the sample with some joint ``actions`` (J',).

        Prices are exact to 0.3 %, about what the arrivals of a minute scatter the load by at the peak.
        """
        return BisectionBalancer(
            self.pool.outcomes["revenue"][:, actions],
            self.pool.costs[:, actions],
            tolerance=3e-3,
            sweeps=3,
            release_margin=self.release_margin,
            **replay_options(self.pool),
        )

    def slices(self, history: np.ndarray) -> SliceBalancer:
        """Return prices for slices of the day, searched on the last day of ``history`` (days,1440) or on another."""
        past = history[-1] if len(history) else self.past_days[0].qps
        values, costs = self.pool.outcomes["revenue"][:, self.actions], self.pool.costs[:, self.actions]
        return SliceBalancer.search(
            values, costs, past, self.scenario.budgets, seed=self.seed, **replay_options(self.pool)
        )

    def static(self) -> StaticBalancer:
        """Return constant prices that fit the budgets at the peak."""
        return StaticBalancer(usual_prices(self.pool, self.scenario.peak_qps))
