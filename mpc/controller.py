"""The model-predictive balancer: linearise, solve Eq. 17, repeat until converged, apply the first prices, roll on."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from marca_env.errors import InputError, unknown_option
from mpc.balancers import Balancer, FeedbackBalancer, FeedbackSettings, bounded, check_price_max, telemetry_fault
from mpc.forecast import MINUTES_PER_DAY, TrafficForecaster
from mpc.planner import ModelError, Now, Planner, PlannerSettings, PredictedLoads
from mpc.problem import SolverError
from mpc.system_model import Conditions, SystemModel

if TYPE_CHECKING:
    from marca_env.cluster import ControlObservation

log = logging.getLogger(__name__)
_HISTORY = 10_000
BIAS_CAP = 0.7  # of a prediction error that is believed at once; below 1 in case the slopes are wrong as well
PULL = 1.02  # aims just past what a cluster can use, so that its price does go to zero
_ZERO = 1e-6  # a log price below this is the solver's rounding of zero


class TelemetryError(RuntimeError):
    """An observation that cannot be used: the prices fall back to feedback, or stay."""


@dataclass(frozen=True)
class MPCSettings(PlannerSettings):
    """Everything about :class:`MPCBalancer`: Eq. 17, and how it is solved and corrected."""

    margin: float = 0.005
    release_margin: float = 0.04
    """While a cluster is degraded, the margin is at least this: overload protection lets go only below the budget."""
    bias_gain: float = 0.2
    """Share of the last prediction error of the cost per request that corrects the next predictions, in [0, 1].
    Summed up, it makes a biased model hold the budget all the same; 0: never."""
    bias_jump: float = 4.0
    """A prediction error of more than this over √(requests of the minute) is mostly believed at once."""
    price_reach: float = 4.0
    """Prices may exceed the highest in the model's training log by this factor; see ``price_max`` too."""
    price_max: float | tuple[float, ...] | None = None
    """Bound of the prices, currency per core-second; ``None``: ``price_reach`` times the training log's highest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.bias_gain <= 1:
            raise InputError(f"bias_gain is {self.bias_gain}; it must lie in [0, 1]")
        for name in ("bias_jump", "price_reach"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")


@dataclass(frozen=True)
class Event:
    """A minute in which the controller fell back."""

    minute: int
    kind: str
    """``telemetry``, ``solver`` or ``model``."""
    message: str


class MPCBalancer:
    """Sets the prices of all clusters together by model-predictive control (Eq. 17–18, arXiv 2512.24325).

    Each minute: traffic is forecast; the last prediction error corrects the model; Eq. 17 is linearised around the
    plan of the minute before and solved as a convex program, again until the true objective stops falling; the first
    prices of the plan are applied. Anything that fails is logged in ``events`` and answered by feedback.

    Args:
        system_model: the fitted model; its clusters are those of the observations.
        settings: see :class:`MPCSettings`; single fields may be given as keywords instead, e.g. ``horizon=15``.
        forecaster: of traffic; fit one on past days with :meth:`TrafficForecaster.fit`. ``None``: default gains.
        fallback: used when planning fails; ``None``: feedback scaled to the model's prices.
        changes: fields of the settings.

    Attributes:
        events: the failures so far, oldest first (the last 10,000).
        problem: the compiled program; never rebuilt.
        expected_load: (G,) load that the last plan expects of the coming minute, core-seconds per second.

    Raises:
        InputError: an unknown or impossible setting.
    """

    def __init__(
        self,
        system_model: SystemModel,
        settings: MPCSettings | None = None,
        *,
        forecaster: TrafficForecaster | None = None,
        fallback: Balancer | None = None,
        **changes: Any,
    ) -> None:
        names = [f.name for f in dataclasses.fields(MPCSettings)]
        for name in changes:
            if name not in names:
                raise InputError(unknown_option("setting of MPCBalancer", name, names))
        self.settings = dataclasses.replace(settings or MPCSettings(), **changes)
        self.model, scale = system_model, system_model.prices
        reach = self.settings.price_reach * np.maximum(system_model.price_limit, scale.scale)
        limit = reach if self.settings.price_max is None else self.settings.price_max
        self.price_max = np.broadcast_to(check_price_max(np.asarray(limit)), system_model.price_limit.shape)
        top = scale.to_log(self.price_max)
        self.planner = Planner(system_model.n_clusters, self.settings, top)
        self.problem = self.planner.problem
        self.forecaster = forecaster or TrafficForecaster()
        feedback = FeedbackSettings(scale=tuple(scale.scale.tolist()))
        self.fallback = fallback or FeedbackBalancer(feedback, price_max=self.price_max)
        self.events: deque[Event] = deque(maxlen=_HISTORY)
        self.reset()

    def reset(self) -> None:
        """Forget telemetry, plan and bias; ``events`` stays."""
        self.forecaster.reset()
        self.fallback.reset()
        n_clusters = self.model.n_clusters
        self._bias = np.zeros(n_clusters)  # of the log cost per request
        self._error = np.zeros(n_clusters)  # the last prediction error of the log cost per request
        self._expected: np.ndarray | None = None  # log cost per request planned for the minute that just ran
        self._plan: np.ndarray | None = None  # (N,G) log prices
        self._levels: np.ndarray | None = None  # degradation of the minute that just ran
        self._prices = np.zeros(n_clusters)
        self.expected_load = np.full(n_clusters, np.nan)

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Prices (G,) for the coming minute: finite, within [0, price_max], whatever the telemetry.

        Raises:
            InputError: an observation of another number of clusters than the model's.
        """
        size = (self.model.n_clusters,)
        for name in ("load", "budget", "degradation", "prices"):
            if np.shape(getattr(observation, name)) != size:
                raise InputError(
                    f"observation: {name} has shape {np.shape(getattr(observation, name))}, but the system model was "
                    f"fitted for the clusters {', '.join(self.model.clusters)}; fit one on a log of this scenario"
                )
        self.forecaster.observe((int(observation.minute) - 1) % MINUTES_PER_DAY, observation.qps)
        try:
            prices = self._planned(observation)
        except (TelemetryError, SolverError, ModelError) as error:
            prices = self._fallen_back(observation, error)
        self._levels = np.asarray(observation.degradation)
        self._prices = bounded(prices, self.price_max)
        return self._prices.copy()

    def _fallen_back(self, observation: ControlObservation, error: Exception) -> np.ndarray:
        kind = (
            "telemetry" if isinstance(error, TelemetryError) else "model" if isinstance(error, ModelError) else "solver"
        )
        self.events.append(Event(int(observation.minute), kind, str(error)))
        log.warning("minute %d: %s: %s; feedback takes over", observation.minute, kind, error)
        self._expected = self._plan = None
        self.expected_load = np.full(self.model.n_clusters, np.nan)
        if telemetry_fault(observation) is not None:
            return self._prices  # feedback on nonsense is worse than the prices in force
        return self.fallback.update(observation)

    # -- planning ------------------------------------------------------------------------------------------------
    def _planned(self, observation: ControlObservation) -> np.ndarray:
        last, prices = self._checked(observation)
        self._correct(observation)
        budget = np.asarray(observation.budget, dtype=np.float64)
        horizon = self._horizon(observation)
        fading = self.model.rollout_log_cost(observation.load, last, prices, horizon)
        bias = torch.as_tensor(self._bias, device=self.model.device)
        margin = np.where(
            np.asarray(observation.degradation) > 0,
            max(self.settings.margin, self.settings.release_margin),
            self.settings.margin,
        )
        predicted = PredictedLoads(self.model, lambda u: fading(u) + bias, horizon.qps, budget)
        in_force = self.model.prices.to_log(prices)
        # A cluster that cannot use its budget even for free must not pull the others away from theirs.
        nominal = np.broadcast_to(in_force, self.problem.shape) if self._plan is None else self._plan
        target = np.minimum(1 - margin, PULL * predicted.reachable(nominal))
        now = Now(in_force, np.asarray(observation.load) / budget, target)
        log_prices, loads, _ = self.planner.plan(predicted, now, self._plan)
        self._plan = np.concatenate([log_prices[1:], log_prices[-1:]])
        self.expected_load = loads[0] * budget
        self._expected = np.log(np.maximum(self.expected_load / horizon.qps[0], 1e-12))
        first = log_prices[0]
        return self.model.prices.to_price(np.where(first < _ZERO, 0.0, first))

    def _checked(self, observation: ControlObservation) -> tuple[Conditions, np.ndarray]:
        """Conditions and prices of the last minute."""
        fault = telemetry_fault(observation)
        if fault is None and observation.qps <= 0:
            fault = "no traffic"
        if fault is not None:
            raise TelemetryError(fault)
        prices = np.asarray(observation.prices, dtype=np.float64)
        prices = bounded(prices if np.all(np.isfinite(prices)) else self._prices, self.price_max)
        levels = np.asarray(observation.degradation) if self._levels is None else self._levels
        minute = (int(observation.minute) - 1) % MINUTES_PER_DAY
        return Conditions(np.array(float(observation.qps)), np.array(minute), levels), prices

    def _correct(self, observation: ControlObservation) -> None:
        """Integrate the last prediction error of the cost per request; the forecast of traffic has no part in it."""
        if self._expected is None:
            return
        cost = np.log(np.maximum(np.asarray(observation.load) / observation.qps, 1e-12))
        error = np.clip(cost - self._expected, -1.0, 1.0)
        # An error far beyond the sampling noise is the model's: most of it is believed at once, unless errors
        # alternate, which says that the corrections themselves overshoot.
        noise = self.settings.bias_jump / np.sqrt(max(observation.qps * self.forecaster.period, 1.0))
        beyond = 1.0 - np.minimum(noise / np.maximum(np.abs(error), 1e-12), 1.0) ** 2
        steady = error * self._error >= 0
        gain = np.maximum(self.settings.bias_gain, BIAS_CAP * beyond * steady) if self.settings.bias_gain > 0 else 0.0
        self._error = error
        self._bias = np.clip(self._bias + gain * error, -2.0, 2.0)

    def _horizon(self, observation: ControlObservation) -> Conditions:
        n = self.settings.horizon
        return Conditions(
            qps=np.maximum(self.forecaster.forecast(n), 1e-6),
            minute=(int(observation.minute) + np.arange(n)) % MINUTES_PER_DAY,
            degradation=np.broadcast_to(np.asarray(observation.degradation), (n, self.model.n_clusters)),
        )
