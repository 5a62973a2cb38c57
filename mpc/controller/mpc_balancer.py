"""The model-predictive balancer: linearise, solve Eq. 17, repeat until converged, apply the first prices, roll on."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from marca_env.utils.errors import InputError, unknown_option
from mpc.balancers.base import Balancer, check_price_max, clip_prices
from mpc.balancers.feedback import FeedbackBalancer, FeedbackSettings
from mpc.controller.bias_correction import Correction
from mpc.controller.fallback import Fallback, KeptPlan, kind_of
from mpc.controller.settings import MPCSettings
from mpc.controller.telemetry import Event, FaultError, FaultKind, Reading, Source, Timeline, minute_of, read
from mpc.controller.traffic_forecast import MINUTES_PER_DAY, TrafficForecaster
from mpc.model.conditions import COST_FLOOR, Conditions
from mpc.model.system_model import SystemModel
from mpc.planning.alternatives.by_name import METHODS, planning_method
from mpc.planning.deadline import Deadline, Watchdog
from mpc.planning.objective import Now
from mpc.planning.predicted_loads import ModelError, PredictedLoads
from mpc.planning.scp import PlanResult

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation

__all__ = ["Event", "MPCBalancer", "MPCSettings"]
log = logging.getLogger(__name__)
_MAX_SKIPPED = 60  # minutes of a gap that the forecaster is taken through
PULL = 1.02  # aims just past what a cluster can use, so that its price does go to zero
_ZERO = 1e-6  # a log price below this is the solver's rounding of zero


class MPCBalancer:
    """Sets the prices of all clusters together by model-predictive control (Eq. 17–18, arXiv 2512.24325).

    Each minute: traffic is forecast; the last prediction error corrects the model; Eq. 17 is minimised around the
    plan of the minute before; the first prices of the plan are applied. Whatever fails is logged in ``events`` with its
    kind and answered by a price all the same: the last good plan's for at most ``hold_minutes``, while the load is near
    what that plan expected; then feedback's; where there is no telemetry to feed back, the price in force.

    Args:
        system_model: the fitted model; its clusters are those of the observations.
        settings: see :class:`MPCSettings`; single fields may be given as keywords instead, e.g. ``horizon=15``.
        forecaster: of traffic; fit one on past days with :meth:`TrafficForecaster.fit`. ``None``: default gains.
        fallback: used when planning fails; ``None``: feedback scaled to the model's prices.
        method: how Eq. 17 is minimised: "scp" or another of :data:`mpc.planning.alternatives.by_name.METHODS`.
        method_options: of that method, e.g. ``{"samples": 100}``.
        changes: fields of the settings.

    Attributes:
        events: the failures so far, oldest first (the last 10,000).
        result: how the last plan was found: iterations, whether it converged, objective, time; ``None`` without one.
        problem: the compiled program of method "scp"; never rebuilt. ``None`` for the others.
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
        method: str = "scp",
        method_options: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        names = [f.name for f in dataclasses.fields(MPCSettings)]
        for name in changes.keys() - set(names):
            raise InputError(unknown_option("setting of MPCBalancer", name, names))
        self.settings = s = dataclasses.replace(settings or MPCSettings(), **changes)
        if method not in METHODS:
            raise InputError(unknown_option("planning method", method, METHODS))
        self.method, self._options = method, dict(method_options or {})
        self.forecaster = forecaster or TrafficForecaster(step=s.control_period)
        self._given_fallback = fallback
        self.events: deque[Event] = deque(maxlen=10_000)
        self._watchdog, self._timeline = Watchdog(), Timeline(s.hold_minutes, s.control_period)
        self._correction = Correction(system_model.n_clusters, s.bias_gain, s.bias_jump, s.tilt_gain)
        self._predicted: PredictedLoads | None = None  # what the minute that just ran was planned with
        self._adopt(system_model)
        self.reset()

    def _adopt(self, model: SystemModel) -> None:
        s, scale = self.settings, model.prices
        if s.margin_deviations > 0 and model.members < 2:
            raise InputError("margin_deviations needs the uncertainty of an ensemble; fit the model with members=5")
        self.model, self._array_response = model, model.array_response()
        limit = s.price_reach * np.maximum(model.price_limit, scale.scale) if s.price_max is None else s.price_max
        self.price_max = np.broadcast_to(check_price_max(np.asarray(limit)), model.price_limit.shape)
        top = scale.to_log(self.price_max)
        self.planner = planning_method(self.method, model.n_clusters, s, top, **self._options)
        self.problem = getattr(self.planner, "problem", None)
        feedback = FeedbackSettings(scale=tuple(scale.scale.tolist()))
        self.fallback = self._given_fallback or FeedbackBalancer(feedback, price_max=self.price_max)
        self.kept = Fallback(self.fallback, scale, s.hold_minutes, s.hold_band)

    def adopt(self, system_model: SystemModel) -> None:
        """Go on with another model of the same clusters, one fitted on newer telemetry, say.

        The price in force, the forecast of traffic and the events stay; what was learnt about the old model's errors
        is dropped.

        Raises:
            InputError: other clusters.
        """
        if system_model.clusters != self.model.clusters:
            raise InputError(
                f"the new model is of the clusters {', '.join(system_model.clusters)}, but this balancer sets prices "
                f"for {', '.join(self.model.clusters)}"
            )
        self._adopt(system_model)
        self._correction.reset()
        self._predicted = None

    def reset(self) -> None:
        """Forget telemetry, plan and corrections; ``events`` stays."""
        self.forecaster.reset()
        self.kept.reset()
        self._timeline.reset()
        self._correction.reset()
        n_clusters = self.model.n_clusters
        self._predicted = None
        self._levels: np.ndarray | None = None  # degradation of the minute that just ran
        self._prices, self._pivot = np.zeros((2, n_clusters))  # in force; log prices of the minute before that one
        self._first = True
        self._forecast_fault: str | None = None
        self.result: PlanResult | None = None
        self.expected_load = np.full(n_clusters, np.nan)

    # -- a minute --------------------------------------------------------------------------------------------------
    def update(self, observation: ControlObservation) -> np.ndarray:
        """Prices (G,) for the coming minute: finite, within [0, price_max], whatever the telemetry, and on time.

        Raises:
            InputError: the first observation is of another number of clusters than the model's.
        """
        clock, reading = Deadline(self.settings.deadline), None
        try:
            reading = self._read(observation)
            prices = self._planned(reading, clock)
        except InputError:
            raise
        except Exception as error:  # whatever breaks, the clusters get a price
            prices = self._fallen_back(observation, reading, error)
        if reading is not None:
            self._levels = reading.degradation
        self._prices = clip_prices(prices, self.price_max)
        return self._prices.copy()

    def _read(self, observation: ControlObservation) -> Reading:
        """A usable observation; the forecaster learns of it, or that one is missing."""
        minute = minute_of(observation)
        skipped = self._timeline.advance(minute)
        if skipped:
            self._record(minute, "gap", f"{skipped} control periods without telemetry", "plan")
            self._missed(skipped)
        try:
            reading = read(observation, self.model.clusters, self._first)
        except FaultError:
            self._observe(minute, float("nan"))
            self._predicted = None
            raise
        self._first = False
        self._observe(reading.minute, reading.qps)
        prices = np.where(np.isfinite(reading.prices), reading.prices, self._prices)
        return dataclasses.replace(reading, prices=clip_prices(prices, self.price_max))

    def _missed(self, minutes: int) -> None:
        """Minutes went by without a reading: traffic drifts on, the plan is older, and the last forecast unchecked."""
        for _ in range(min(minutes, _MAX_SKIPPED)):
            self._observe(None, float("nan"))
        self.kept.skip(minutes)
        self._predicted = None

    def _observe(self, minute: int | None, qps: float) -> None:
        """Tell the forecaster of the minute before ``minute``."""
        before = self._timeline.last if minute is None else minute
        try:
            self.forecaster.observe(((before or 0) - self.settings.control_period) % MINUTES_PER_DAY, qps)
        except Exception as error:  # a forecaster is foreign code
            self._forecast_fault = f"{type(error).__name__}: {error}"

    def _fallen_back(self, observation: ControlObservation, reading: Reading | None, error: Exception) -> np.ndarray:
        """The price of a minute that could not be planned."""
        kind = kind_of(error)
        if kind == "internal":
            log.error("planning failed in an unforeseen way", exc_info=error)
        told = str(error) or type(error).__name__
        if kind == "stale":  # nothing has happened since the price in force was set
            self._record(minute_of(observation), kind, told, "held")
            return self._prices
        prices, source = self.kept.price(observation, reading, self._prices)
        self._record(minute_of(observation), kind, told, source)
        self._predicted, self.result = None, None
        self.expected_load = np.full(self.model.n_clusters, np.nan)
        return prices

    def _record(self, minute: int | None, kind: FaultKind, message: str, price: Source) -> None:
        self.events.append(Event(-1 if minute is None else minute, kind, message, price))
        log.warning("minute %s: %s: %s; price: %s", minute, kind, message, price)

    # -- planning --------------------------------------------------------------------------------------------------
    def _planned(self, reading: Reading, clock: Deadline) -> np.ndarray:
        in_force = self.model.prices.to_log(reading.prices)
        self._correct(reading, in_force)
        self._in_range(reading)
        predicted, now, nominal = self._problem_of(reading, in_force, self._horizon(reading))
        soft = Deadline(0.8 * clock.left)  # what looks at the clock ends by itself; what does not is left behind
        result = self._watchdog.run(lambda: self.planner.plan(predicted, now, nominal, soft), clock.left)
        if result.reason == "deadline":
            self._record(reading.minute, "timeout", "the plan is the best that was found in time", "plan")
        log_prices, loads, _ = result.point
        if not np.all(np.isfinite(log_prices)):
            raise FaultError("solver", "the plan holds prices that are not finite")
        self.result, self._predicted, self._pivot = result, predicted, in_force
        if self.kept.faults:
            log.info("minute %d: planning again after %d minutes without", reading.minute, self.kept.faults)
        self.kept.keep(KeptPlan(log_prices, loads))
        self.expected_load = loads[0] * reading.budget
        log_prices = self._correction.bounded(log_prices[0], in_force)
        return self.model.prices.to_price(np.where(log_prices < _ZERO, 0.0, log_prices))

    def _problem_of(
        self, reading: Reading, in_force: np.ndarray, horizon: Conditions
    ) -> tuple[PredictedLoads, Now, np.ndarray | None]:
        """What the coming minutes look like, what to aim at, and the prices to start from."""
        levels = reading.degradation if self._levels is None else self._levels
        minute = np.array((reading.minute - self.settings.control_period) % MINUTES_PER_DAY)
        last = Conditions(np.array(reading.qps), minute, levels)
        costs = self._array_response.horizon(reading.load, last, reading.prices, horizon)
        correction = self._correction
        predicted = PredictedLoads(
            costs, horizon.qps, reading.budget, bias=correction.bias, tilt=correction.tilt, pivot=in_force
        )
        nominal = None if self.kept.plan is None else self.kept.plan.log_prices
        around = np.broadcast_to(in_force, predicted.shape) if nominal is None else nominal
        s, degraded = self.settings, reading.degradation > 0
        aim = 1.0 - np.where(degraded, max(s.margin, s.release_margin), s.margin)  # (G,)
        if s.margin_deviations > 0:
            aim = aim * np.exp(-s.margin_deviations * predicted.spread(around))  # (N,G)
        # A cluster that cannot use its budget even for free must not pull the others away from theirs.
        target = np.minimum(aim, PULL * predicted.reachable(around))
        now = Now(in_force, reading.load / reading.budget, target, s.emphasis(horizon.minute))
        if not (np.all(np.isfinite(target)) and np.all(np.isfinite(in_force))):
            raise ModelError("predicted loads are not finite; fit the model on a log that covers these prices")
        return predicted, now, nominal

    def _correct(self, reading: Reading, in_force: np.ndarray) -> None:
        """Learn from the last prediction error of the cost per request; the forecast of traffic has no part in it."""
        if self._predicted is None:
            self._correction.unchecked()
            return
        expected = self._predicted.first_log_cost(in_force)
        cost = np.log(np.maximum(reading.load / reading.qps, 1e-12))
        requests = reading.qps * self.forecaster.period
        self._correction.update(cost, expected, in_force - self._pivot, requests)

    def _in_range(self, reading: Reading) -> None:
        """Raise where the model would have to guess: an hour, or a cost per request, unlike any of its training."""
        seen, hour = self.model.coverage, reading.minute // 60
        if "hours" in seen and not seen["hours"][hour]:
            raise FaultError("range", f"the model's log has no minute between {hour}:00 and {hour}:59")
        if "log_cost" in seen:
            cost = np.log(np.maximum(reading.load / reading.qps, COST_FLOOR))
            slack = np.log(self.settings.range_slack) + 4.0 / np.sqrt(max(reading.qps * self.forecaster.period, 1.0))
            low, high = seen["log_cost"]
            for name, value, least, most in zip(self.model.clusters, cost, low - slack, high + slack, strict=True):
                if not least <= value <= most:
                    raise FaultError(
                        "range",
                        f"{name} uses {np.exp(value):.3g} core-seconds per request; the model knows "
                        f"{np.exp(least):.3g} to {np.exp(most):.3g}",
                    )

    def _horizon(self, reading: Reading) -> Conditions:
        n, fault = self.settings.horizon, self._forecast_fault
        self._forecast_fault = None
        if fault is not None:
            raise FaultError("forecast", fault)
        try:
            qps = np.asarray(self.forecaster.forecast(n), dtype=np.float64)
        except Exception as error:  # a forecaster is foreign code
            raise FaultError("forecast", f"{type(error).__name__}: {error}") from error
        if qps.shape != (n,) or not np.all(np.isfinite(qps)) or np.any(qps < 0):
            raise FaultError(
                "forecast",
                f"traffic forecast {np.round(qps, 1).tolist()}; {n} finite numbers, not negative, are needed",
            )
        return Conditions(
            qps=np.maximum(qps, 1e-6),
            minute=(reading.minute + self.settings.control_period * np.arange(n)) % MINUTES_PER_DAY,
            degradation=np.broadcast_to(reading.degradation, (n, self.model.n_clusters)),
        )
