"""The model-predictive balancer: minimise Eq. 17 each minute over a horizon, apply the prices of its first minute."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.units import MINUTES_PER_DAY
from mpc.balancers.base import Balancer, check_price_max, clip_prices
from mpc.balancers.feedback import FeedbackBalancer, FeedbackSettings
from mpc.balancers.saved_state import to_array, to_count, to_lists, to_optional_array
from mpc.controller.bias_correction import BiasCorrection
from mpc.controller.fallback import FallbackPrices, RemainingPlan, fault_kind, readable
from mpc.controller.settings import MPCSettings
from mpc.controller.telemetry import (
    CheckedObservation,
    Event,
    FaultError,
    FaultKind,
    PriceSource,
    RepeatedMinuteError,
    Timeline,
    check_observation,
    minute_of_day,
)
from mpc.controller.traffic_forecast import BUSY_REQUESTS, TrafficForecaster
from mpc.controller.window_memory import WindowMemory
from mpc.model.conditions import COST_FLOOR, Conditions
from mpc.model.fitting import read_transitions
from mpc.model.forecast_errors import response_errors
from mpc.planning.alternatives.registry import PLANNING_METHODS, make_planning_method
from mpc.planning.deadline import Deadline, DeadlineError, Watchdog
from mpc.planning.objective import PlanStart
from mpc.planning.planning_method import PlanningMethod, PlanResult
from mpc.planning.predicted_loads import ModelError, PredictedLoads

if TYPE_CHECKING:
    import pandas as pd

    from marca_env.traffic.control import ControlObservation
    from mpc.model.system_model import SystemModel

T = TypeVar("T")
log = logging.getLogger(__name__)
AIM_BEYOND_REACH = 1.02
"""A cluster that cannot use its budget aims at this multiple of its load at price zero, so that its price does reach
zero."""
SOFT, HARD = 0.75, 0.85
"""Shares of the deadline after which planning is asked to end, and after which its thread is abandoned."""
FOREIGN = 0.1
"""Share of the deadline that a forecaster, and a fallback balancer, of the user may take."""
_MAX_SKIPPED = 60  # minutes of a gap that the forecaster is updated with
_ZERO = 1e-6  # a log price below this is a rounding error of zero


class MPCBalancer:
    """Sets the prices of all clusters together by model-predictive control (Eq. 17 and 18, arXiv 2512.24325).

    In each minute the balancer forecasts traffic, corrects the model by the last prediction error, minimises Eq. 17
    around the plan of the minute before, and applies the prices of the first minute.

    Every failure is recorded in ``events`` with its kind, and the clusters get a price nevertheless: from the last good
    plan for at most ``hold_minutes``, while the load is near its prediction; then from feedback; without telemetry, the
    prices in force.

    Args:
        system_model: the fitted model (Eq. 18); its clusters are those of the observations.
        settings: see :class:`MPCSettings`; single fields may be passed as keywords instead, such as ``horizon=15``.
        forecaster: forecaster of the traffic; fit one to past days with :meth:`TrafficForecaster.fit`. ``None``:
            default gains.
        fallback: balancer for minutes without a plan; ``None``: feedback scaled to the model's prices.
        method: method to minimise Eq. 17, a key of
            :data:`mpc.planning.alternatives.registry.PLANNING_METHODS`.
        method_options: keyword arguments of the method, such as ``{"samples": 100}``.
        changes: fields of the settings.

    Attributes:
        events: the failures so far, oldest first (the last 10,000).
        result: the last plan, with its iterations, convergence, objective and time; ``None`` after a failure.
        problem: the compiled program of method "scp"; ``None`` for the other methods.
        price_max: (G,) upper bounds of the prices, currency per core-second.
        window_memory: errors of the model at the beginning of each time window of the past days.
        expected_load: (G,) load that the last plan predicts for the coming minute, core-seconds per second.

    Raises:
        InputError: an unknown or impossible setting.
    """

    @checked_arguments
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
        if method not in PLANNING_METHODS:
            raise InputError(unknown_option("planning method", method, PLANNING_METHODS))
        self.method, self._options = method, dict(method_options or {})
        self.forecaster = forecaster or TrafficForecaster(step=s.control_period)
        self._custom_fallback = fallback
        self.events: deque[Event] = deque(maxlen=10_000)
        self._forecast_watchdog = None if type(self.forecaster) is TrafficForecaster else Watchdog(most=1)
        self._watchdog, self._timeline = Watchdog(), Timeline(s.hold_minutes, s.control_period)
        self._correction = BiasCorrection(system_model.n_clusters, s.bias_gain, s.bias_jump, s.tilt_gain)
        self._predicted: PredictedLoads | None = None  # the prediction for the last minute
        self._use_model(system_model)
        self.reset()

    def _use_model(self, model: SystemModel) -> None:
        s, scale = self.settings, model.prices
        if s.margin_deviations > 0 and model.members < 2:
            raise InputError("margin_deviations needs the uncertainty of an ensemble; fit the model with members=5")
        self.model, self._array_response = model, model.array_response()
        limit = s.price_reach * np.maximum(model.price_limit, scale.scale) if s.price_max is None else s.price_max
        self.price_max = np.broadcast_to(check_price_max(np.asarray(limit)), model.price_limit.shape)
        self._top = scale.to_log(self.price_max)
        self._use_planner(self._new_planner())
        self.window_memory = WindowMemory(model.n_clusters, model.windows)
        feedback = FeedbackSettings(scale=tuple(scale.scale.tolist()))
        self.fallback = self._custom_fallback or FeedbackBalancer(feedback, price_max=self.price_max)
        seconds = None if self._custom_fallback is None else FOREIGN * s.deadline
        self.fallback_prices = FallbackPrices(self.fallback, scale, s.hold_minutes, s.hold_band, seconds)

    def _new_planner(self) -> PlanningMethod:
        """Return a new planner, which shares nothing with the one before."""
        return make_planning_method(self.method, self.model.n_clusters, self.settings, self._top, **self._options)

    def _use_planner(self, planner: PlanningMethod) -> None:
        self.planner, self.problem = planner, getattr(planner, "problem", None)
        self._planner_is_lost = False

    def adopt(self, system_model: SystemModel) -> None:
        """Continue with another model of the same clusters, such as one fitted to newer telemetry.

        The prices in force, the traffic forecast and the events stay. The corrections of the old model are dropped.

        Raises:
            InputError: a model of other clusters.
        """
        if system_model.clusters != self.model.clusters:
            raise InputError(
                f"the new model has the clusters {', '.join(system_model.clusters)}, but this balancer sets the prices "
                f"of {', '.join(self.model.clusters)}; fit one on a log of these"
            )
        self._use_model(system_model)
        self._correction.reset()
        self._predicted = None

    def learn(self, system_log: pd.DataFrame) -> None:
        """Remember how far the model was off at the beginning of each time window of the past days.

        The balancer then expects the same at the beginning of this window. It learns the same from the days that it
        controls; a log is needed for the first day only.

        Args:
            system_log: minutes of the past days, oldest first, with the columns that :meth:`mpc.SystemModel.fit` reads.

        Raises:
            InputError: a missing column, or a value that is not a finite number.
        """
        table, _ = read_transitions(system_log, self.model.clusters)
        rows = np.unique([table.starts, table.starts + 1])
        errors = response_errors(self.model, table, rows)
        self.window_memory.learn(table.conditions.minute[rows], errors)

    def reset(self) -> None:
        """Forget telemetry, plan and corrections; ``events`` and the model stay."""
        self.forecaster.reset()
        self.fallback_prices.reset()
        self._timeline.reset()
        self._correction.reset()
        self.window_memory.reset()
        n_clusters = self.model.n_clusters
        self._predicted = None
        self._levels: np.ndarray | None = None  # degradation in the last minute
        self._prices, self._pivot = np.zeros((2, n_clusters))  # in force; log prices of the minute before
        self._first = True
        self._forecast_fault: str | None = None
        self.result: PlanResult | None = None
        self.expected_load = np.full(n_clusters, np.nan)

    def state_dict(self) -> dict[str, Any]:
        """Return the memory of the controller as values of JSON: forecaster, corrections, plan and prices in force.

        The model, the settings and the events are not in it.
        """
        save = getattr(self.forecaster, "state_dict", None)
        return {
            "clusters": list(self.model.clusters),
            "forecaster": save() if save else None,
            "minute": self._timeline.last,
            "prices": to_lists(self._prices),
            "pivot": to_lists(self._pivot),
            "levels": to_lists(self._levels),
            "is_first": self._first,
            "correction": self._correction.state_dict(),
            "window_memory": self.window_memory.state_dict(),
            "fallback": self.fallback_prices.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`, such as in a new process with the same model.

        The last prediction is not in it, so the first minute afterwards corrects nothing. Minutes that passed between
        are a gap.

        Raises:
            InputError: a damaged state, or one of other clusters; the controller is then as after :meth:`reset`.
        """
        self.reset()
        try:
            self._load(state)
        except (InputError, AttributeError, TypeError, ValueError) as error:
            self.reset()
            raise InputError(f"state of MPCBalancer: {error}; call reset() to begin without a past") from None

    def _load(self, state: Mapping[str, Any]) -> None:
        clusters, shape = state.get("clusters"), (self.model.n_clusters,)
        if clusters != list(self.model.clusters):
            raise InputError(f"of the clusters {clusters}, and the model is of {', '.join(self.model.clusters)}")
        load = getattr(self.forecaster, "load_state_dict", None)
        if state.get("forecaster") is not None and load is not None:
            load(state["forecaster"])
        if state.get("minute") is not None:
            self._timeline.advance(to_count(state, "minute") % MINUTES_PER_DAY)
        self._prices = clip_prices(to_array(state, "prices", shape), self.price_max)
        self._pivot = to_array(state, "pivot", shape)
        levels = to_optional_array(state, "levels", shape)
        self._levels = None if levels is None else levels.astype(np.int64)
        self._first = bool(state.get("is_first"))
        self._correction.load_state_dict(state.get("correction") or {})
        self.window_memory.load_state_dict(state.get("window_memory") or {})
        self.fallback_prices.load_state_dict(state.get("fallback") or {}, *shape)

    @property
    def late_plans(self) -> int:
        """Number of plans so far that missed the deadline."""
        return self._watchdog.overruns

    # -- one minute ------------------------------------------------------------------------------------------------
    def update(self, observation: ControlObservation) -> np.ndarray:
        """Return prices (G,) for the coming minute: in time, finite and within [0, price_max] for any telemetry.

        Raises:
            InputError: the first observation is of another number of clusters than the model's.
        """
        clock, checked = Deadline(self.settings.deadline), None
        observation = readable(observation)
        try:
            checked = self._check(observation)
            prices = self._plan(checked, clock) if self._is_worth_a_plan(checked) else self._hold()
        except InputError:
            raise
        except Exception as error:  # the clusters need a price after any failure
            prices = self._fall_back(observation, checked, error)
        if checked is not None:
            self._levels = checked.degradation
        self._prices = clip_prices(prices, self.price_max)
        return self._prices.copy()

    def _check(self, observation: ControlObservation) -> CheckedObservation:
        """Return the valid values of the observation, and update the forecaster."""
        minute = minute_of_day(observation)
        skipped = self._timeline.advance(minute)
        if skipped:
            self._record(minute, "gap", f"{skipped} control periods without telemetry", "plan")
            self._skip(skipped)
        try:
            checked = check_observation(observation, self.model.clusters, self._first)
        except FaultError:
            self._observe(minute, float("nan"))
            self._predicted = None
            raise
        self._first = False
        self._observe(checked.minute, checked.qps)
        prices = np.where(np.isfinite(checked.prices), checked.prices, self._prices)
        return dataclasses.replace(checked, prices=clip_prices(prices, self.price_max))

    def _skip(self, minutes: int) -> None:
        """Account for minutes without an observation, in the forecaster and in the last plan."""
        for _ in range(min(minutes, _MAX_SKIPPED)):
            self._observe(None, float("nan"))
        self.fallback_prices.skip(minutes)
        self._predicted = None

    def _observe(self, minute: int | None, qps: float) -> None:
        """Pass the QPS of the minute before ``minute`` to the forecaster."""
        before = self._timeline.last if minute is None else minute
        try:
            minute = ((before or 0) - self.settings.control_period) % MINUTES_PER_DAY
            self._in_time(lambda: self.forecaster.observe(minute, qps))
        except Exception as error:  # a forecaster of the user may raise anything
            self._forecast_fault = f"{type(error).__name__}: {error}"

    def _fall_back(
        self, observation: ControlObservation, checked: CheckedObservation | None, error: Exception
    ) -> np.ndarray:
        """Return the prices of a minute that could not be planned, and record the failure."""
        kind = fault_kind(error)
        if kind == "internal":
            log.error("planning failed with an unexpected error", exc_info=error)
        message = str(error) or type(error).__name__
        if isinstance(error, RepeatedMinuteError):  # nothing has changed since the prices in force were set
            self._record(minute_of_day(observation), kind, message, "held")
            return self._prices
        prices, source = self.fallback_prices.price(observation, checked, self._prices)
        self._record(minute_of_day(observation), kind, message, source)
        self._predicted, self.result = None, None
        self.expected_load = np.full(self.model.n_clusters, np.nan)
        return prices

    def _record(self, minute: int | None, kind: FaultKind, message: str, price: PriceSource) -> None:
        self.events.append(Event(-1 if minute is None else minute, kind, message, price))
        log.warning("minute %s: %s: %s; price: %s", minute, kind, message, price)

    def _is_worth_a_plan(self, checked: CheckedObservation) -> bool:
        """Return whether there was traffic, or the forecast expects it to begin again in the coming minute."""
        if checked.state == "value":
            return True
        if self._forecast_fault is not None:  # it is recorded when a forecast is needed
            return False
        try:
            expected = float(self._horizon(checked).qps[0])
        except FaultError:  # nobody waits for a forecast in this minute
            return False
        return expected * self.forecaster.period >= BUSY_REQUESTS

    def _hold(self) -> np.ndarray:
        """Return the prices in force, after a minute without a request: nothing was measured, and nothing is wrong.

        Unless the forecast foresees it, the first minute with traffic then meets the prices from before the quiet
        minutes.
        """
        self.fallback_prices.skip(1)
        self._predicted, self.result = None, None
        self.expected_load = np.full(self.model.n_clusters, np.nan)
        return self._prices

    # -- planning --------------------------------------------------------------------------------------------------
    def _plan(self, checked: CheckedObservation, clock: Deadline) -> np.ndarray:
        """Return the prices of a new plan, and remember the plan."""
        in_force, last = self.model.prices.to_log(checked.prices), self._last_conditions(checked)
        if checked.state == "value":
            innovation = self._array_response.innovation(checked.load, last, checked.prices)  # (K,G)
            self._correct(checked, in_force, innovation)
            self._check_range(checked)
        else:  # without a request no cost was measured: nothing can be corrected
            innovation = np.zeros((self.model.members, self.model.n_clusters))
            self._correction.lift_limit()
        predicted, start, nominal = self._planning_problem(checked, in_force, innovation, self._horizon(checked))
        result = self._search(predicted, start, nominal, clock)
        if result.reason == "deadline":
            self._record(checked.minute, "timeout", "the plan is the best found before the deadline", "plan")
        log_prices, loads, _ = result.plan
        if not np.all(np.isfinite(log_prices)):
            raise FaultError("solver", "the plan holds prices that are not finite")
        self.result, self._predicted, self._pivot = result, predicted, in_force
        if self.fallback_prices.faults:
            log.info(
                "minute %d: planning works again after %d minutes without a plan",
                checked.minute,
                self.fallback_prices.faults,
            )
        self.fallback_prices.remember(RemainingPlan(log_prices, loads))
        self.expected_load = loads[0] * checked.budget
        log_prices = self._correction.limit_move(log_prices[0], in_force)
        return self.model.prices.to_price(np.where(log_prices < _ZERO, 0.0, log_prices))

    def _search(
        self, predicted: PredictedLoads, start: PlanStart, nominal: np.ndarray | None, clock: Deadline
    ) -> PlanResult:
        """Plan in a thread that is abandoned at the deadline.

        A planner whose thread was abandoned belongs to this thread until it ends. Until then the next plans are made by
        a new planner.

        Raises:
            DeadlineError: planning took too long.
        """
        soft = Deadline(
            SOFT * clock.left
        )  # a method that checks the clock ends in time; the watchdog leaves the others
        self._planner_is_lost &= self._watchdog.abandoned > 0
        current = None if self._planner_is_lost else self.planner

        def work() -> tuple[PlanningMethod, PlanResult]:
            planner = self._new_planner() if current is None else current
            return planner, planner.plan(predicted, start, nominal, soft)

        overruns = self._watchdog.overruns
        try:
            planner, result = self._watchdog.run(work, HARD * clock.left)
        except DeadlineError:
            self._planner_is_lost |= self._watchdog.overruns > overruns
            raise
        if current is None:
            self._use_planner(planner)
        return result

    def _planning_problem(
        self, checked: CheckedObservation, in_force: np.ndarray, innovation: np.ndarray, horizon: Conditions
    ) -> tuple[PredictedLoads, PlanStart, np.ndarray | None]:
        """Return the predicted loads, the start with its target, and the nominal log prices (N,G), if any."""
        fading = self._array_response.fading(len(horizon.minute)) * innovation[:, None]  # (K,N,G)
        costs, correction = self._array_response.costs(horizon, fading), self._correction
        bias = self._bias(horizon.minute, fading.mean(0))
        is_new_window = self.window_memory.is_other(horizon.minute)  # the slopes of another mix of requests are others
        tilt = np.where(is_new_window[:, None], 0.0, correction.tilt)
        predicted = PredictedLoads(costs, horizon.qps, checked.budget, bias=bias, tilt=tilt, pivot=in_force)
        remaining = self.fallback_prices.plan
        nominal = None if remaining is None else remaining.log_prices
        around = np.broadcast_to(in_force, predicted.shape) if nominal is None else nominal
        s, degraded = self.settings, checked.degradation > 0
        aim = 1.0 - np.where(degraded, max(s.margin, s.release_margin), s.margin)  # (G,)
        if s.margin_deviations > 0:
            aim = aim * np.exp(-s.margin_deviations * predicted.spread(around))  # (N,G)
        # A cluster that cannot use its budget at price zero must not pull the others away from theirs.
        target = np.minimum(aim, AIM_BEYOND_REACH * predicted.loads_at_zero_price(around))
        start = PlanStart(in_force, checked.load / checked.budget, target, s.emphasis(horizon.minute))
        if not (np.all(np.isfinite(target)) and np.all(np.isfinite(in_force))):
            raise ModelError
        return predicted, start, nominal

    def _last_conditions(self, checked: CheckedObservation) -> Conditions:
        """Return the conditions of the last minute."""
        levels = checked.degradation if self._levels is None else self._levels
        minute = np.array((checked.minute - self.settings.control_period) % MINUTES_PER_DAY)
        return Conditions(np.array(checked.qps), minute, levels)

    def _correct(self, checked: CheckedObservation, in_force: np.ndarray, innovation: np.ndarray) -> None:
        """Update the corrections by the last prediction error of the cost per request at the measured traffic.

        Args:
            checked: the telemetry.
            in_force: (G,) log prices of the last minute.
            innovation: (K,G) error of the response in the last minute.
        """
        minute, error = (checked.minute - self.settings.control_period) % MINUTES_PER_DAY, innovation.mean(0)
        requests = checked.qps * self.forecaster.period
        minutes = np.array([minute])
        is_new_window, expected = self.window_memory.is_other(minutes)[0], self.window_memory.expected(minutes)[0]
        self.window_memory.observe(minute, error)
        if is_new_window:
            lasting = 1.0 - self._array_response.fading(1)[:, 0].mean(0)  # share of an error that does not fade
            self._correction.begin_window(lasting * expected, lasting * error, requests)
            return
        if self._predicted is None:
            self._correction.lift_limit()
            return
        expected = self._predicted.first_log_cost(in_force)
        cost = np.log(np.maximum(checked.load / checked.qps, 1e-12))
        self._correction.update(cost, expected, in_force - self._pivot, requests)

    def _bias(self, minutes: np.ndarray, fading: np.ndarray) -> np.ndarray:
        """Return the correction (N,G) of the log cost per request in the coming ``minutes`` (N,).

        In a time window that begins within the horizon it is the error that the past days showed, instead of what is
        left of the errors of this window.

        Args:
            minutes: (N,) of the day.
            fading: (N,G) what is left of the last innovation, mean over the members.
        """
        bias = self._correction.bias
        if self.settings.bias_gain == 0:
            return bias
        expected = self.window_memory.expected(minutes)
        return np.where(np.isfinite(expected), expected - fading, bias)

    def _check_range(self, checked: CheckedObservation) -> None:
        """Raise if the hour or the cost per request is outside the range of the model's training log."""
        coverage, hour = self.model.coverage, checked.minute // 60
        if "hours" in coverage and not coverage["hours"][hour]:
            raise FaultError("range", f"the model's training log has no minute between {hour}:00 and {hour}:59")
        if "log_cost" in coverage:
            cost = np.log(np.maximum(checked.load / checked.qps, COST_FLOOR))
            slack = np.log(self.settings.range_slack) + 4.0 / np.sqrt(max(checked.qps * self.forecaster.period, 1.0))
            low, high = coverage["log_cost"]
            for name, value, least, most in zip(self.model.clusters, cost, low - slack, high + slack, strict=True):
                if not least <= value <= most:
                    raise FaultError(
                        "range",
                        f"{name} uses {np.exp(value):.3g} core-seconds per request; the training log covers "
                        f"{np.exp(least):.3g} to {np.exp(most):.3g}",
                    )

    def _in_time(self, work: Callable[[], T]) -> T:
        """Return the result of the forecaster; one of the user runs in a thread, because it may hang."""
        if self._forecast_watchdog is None:
            return work()
        return self._forecast_watchdog.run(work, FOREIGN * self.settings.deadline)

    def _horizon(self, checked: CheckedObservation) -> Conditions:
        """Return the conditions (N,) of the coming minutes, with forecast traffic."""
        n, fault = self.settings.horizon, self._forecast_fault
        self._forecast_fault = None
        if fault is not None:
            raise FaultError("forecast", fault)
        try:
            qps = np.asarray(self._in_time(lambda: self.forecaster.forecast(n)), dtype=np.float64)
        except Exception as error:  # a forecaster of the user may raise anything
            raise FaultError("forecast", f"{type(error).__name__}: {error}") from error
        if qps.shape != (n,) or not np.all(np.isfinite(qps)) or np.any(qps < 0):
            raise FaultError(
                "forecast",
                f"traffic forecast {np.round(qps, 1).tolist()}; it must hold {n} finite numbers, not negative",
            )
        return Conditions(
            qps=np.maximum(qps, 1e-6),
            minute=(checked.minute + self.settings.control_period * np.arange(n)) % MINUTES_PER_DAY,
            degradation=np.broadcast_to(checked.degradation, (n, self.model.n_clusters)),
        )
