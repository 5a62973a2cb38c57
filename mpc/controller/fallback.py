"""Prices for minutes without a new plan: from the last good plan, then from feedback, else the prices in force."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from marca_env.traffic.control import ControlObservation
from mpc.balancers.base import Balancer
from mpc.balancers.saved_state import to_array, to_count, to_lists, to_optional_array
from mpc.controller.telemetry import CheckedObservation, FaultError, FaultKind, PriceSource
from mpc.model.conditions import PriceScale
from mpc.planning.deadline import DeadlineError, Watchdog
from mpc.planning.load_qp import InfeasibleError, SolverError, TimeLimitError
from mpc.planning.predicted_loads import ModelError

log = logging.getLogger(__name__)
FAULT_KINDS: tuple[tuple[type[Exception], FaultKind], ...] = (
    (InfeasibleError, "infeasible"),
    (TimeLimitError, "timeout"),
    (SolverError, "solver"),
    (DeadlineError, "timeout"),
    (ModelError, "model"),
)


def fault_kind(error: Exception) -> FaultKind:
    """Return the kind of fault of an exception."""
    if isinstance(error, FaultError):
        return error.kind
    return next((kind for cause, kind in FAULT_KINDS if isinstance(error, cause)), "internal")


_UNREADABLE = object()


def readable(observation: Any) -> ControlObservation:
    """Return an observation whose attributes can be read, whatever reading them raised; then they are ``None``.

    Args:
        observation: anything that has, or should have, the attributes of a ``ControlObservation``.
    """
    values = {f.name: _read(observation, f.name) for f in dataclasses.fields(ControlObservation)}
    if isinstance(observation, ControlObservation) and not any(value is _UNREADABLE for value in values.values()):
        return observation
    known: dict[str, Any] = {name: None if value is _UNREADABLE else value for name, value in values.items()}
    return ControlObservation(**known)


def _read(observation: Any, name: str) -> Any:
    """Return an attribute, or ``_UNREADABLE`` if it, or its conversion to numbers, raises an unexpected error.

    A property, or an array that is loaded when it is used, may raise anything.
    """
    try:
        value = getattr(observation, name)
    except Exception:
        return _UNREADABLE
    try:
        if name == "minute":
            int(value)
        else:
            np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return value  # the checks of the telemetry name this fault
    except Exception:
        return _UNREADABLE
    return value


class RemainingPlan(NamedTuple):
    """The minutes of a plan that are still ahead."""

    log_prices: np.ndarray
    """(N,G)."""
    loads: np.ndarray
    """(N,G) predicted loads as fractions of the budgets."""

    def shifted(self, minutes: int) -> RemainingPlan | None:
        """Return the plan some minutes later, its last minute repeated; ``None`` if all its minutes are past."""
        n = len(self.log_prices)
        if minutes > n:
            return None
        index = np.minimum(np.arange(n) + minutes, n - 1)
        return RemainingPlan(self.log_prices[index], self.loads[index])


class FallbackPrices:
    """Remembers the last good plan and returns prices for minutes without a new one.

    Args:
        balancer: a balancer that needs no plan, used when the last plan is too old or wrong.
        scale: scale of the model's prices.
        hold_minutes: number of consecutive minutes for which the last plan is used.
        hold_band: distance of the load from the plan's prediction, as a fraction of the budget, above which the plan
            counts as wrong.
        seconds: time after which the prices in force are used instead of an answer of the balancer; ``None``: it always
            answers.

    Attributes:
        plan: the plan from the coming minute on; ``None`` if there is no usable one.
        faults: number of consecutive minutes without a new plan.
    """

    def __init__(
        self,
        balancer: Balancer,
        scale: PriceScale,
        hold_minutes: int,
        hold_band: float,
        seconds: float | None = None,
    ) -> None:
        self.balancer, self.scale, self.hold_minutes, self.hold_band = balancer, scale, hold_minutes, hold_band
        self.seconds, self._watchdog = seconds, Watchdog(most=1)
        self.reset()

    def reset(self) -> None:
        """Forget the plan, and reset the balancer."""
        self.balancer.reset()
        self.plan: RemainingPlan | None = None
        self._expected: np.ndarray | None = None  # (G,) load of the last minute by the plan, as budget fractions
        self.faults = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the plan, and the memory of the balancer if it gives it, as values of JSON."""
        save = getattr(self.balancer, "state_dict", None)
        plan = None if self.plan is None else {name: to_lists(value) for name, value in self.plan._asdict().items()}
        expected = to_lists(self._expected)
        return {"plan": plan, "expected": expected, "faults": self.faults, "balancer": save() if save else None}

    def load_state_dict(self, state: Mapping[str, Any], n_clusters: int) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InputError: a damaged state, or one of another number of clusters.
        """
        faults, expected = to_count(state, "faults"), to_optional_array(state, "expected", (n_clusters,))
        plan, saved = state.get("plan"), state.get("balancer")
        load = getattr(self.balancer, "load_state_dict", None)
        if saved is not None and load is not None:
            load(saved)
        self.plan = None
        if plan is not None:
            log_prices = to_array(plan, "log_prices", (-1, n_clusters))
            self.plan = RemainingPlan(log_prices, to_array(plan, "loads", log_prices.shape))
        self._expected, self.faults = expected, faults

    def remember(self, plan: RemainingPlan) -> None:
        """Remember a plan whose first minute is about to run."""
        self.plan, self._expected, self.faults = plan.shifted(1), plan.loads[0], 0

    def skip(self, minutes: int) -> None:
        """Shift the plan by minutes without an observation."""
        self.plan = None if self.plan is None else self.plan.shifted(minutes)

    def price(
        self, observation: ControlObservation, checked: CheckedObservation | None, in_force: np.ndarray
    ) -> tuple[np.ndarray, PriceSource]:
        """Return prices (G,) for the coming minute, and their source.

        Args:
            observation: the observation as received.
            checked: its valid values; ``None``: it has none.
            in_force: (G,) prices that were set last.
        """
        self.faults += 1
        if self.plan is not None and self.faults <= self.hold_minutes and self._is_as_expected(checked):
            plan = self.plan
            self.plan, self._expected = plan.shifted(1), plan.loads[0]
            return self.scale.to_price(plan.log_prices[0]), "plan"
        self.plan = self._expected = None
        if checked is None:
            return in_force, "held"
        try:
            known = dataclasses.replace(observation, **checked.fields())
            prices = self._answer(known)
            return np.asarray(prices, dtype=np.float64).reshape(in_force.shape), "feedback"
        except Exception as error:  # nothing is left to fall back on, so this must not raise
            log.error("the fallback balancer failed: %s: %s", type(error).__name__, error)
            return checked.prices, "held"

    def _answer(self, observation: ControlObservation) -> np.ndarray:
        if self.seconds is None:
            return self.balancer.update(observation)
        return self._watchdog.run(lambda: self.balancer.update(observation), self.seconds)

    def _is_as_expected(self, checked: CheckedObservation | None) -> bool:
        """Return whether the load is near the plan's prediction; without valid values it is assumed to be."""
        if checked is None or self._expected is None:
            return True
        return bool(np.all(np.abs(checked.load / checked.budget - self._expected) <= self.hold_band))
