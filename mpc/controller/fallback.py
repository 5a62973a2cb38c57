"""What a failure is called, and the price of its minute: the last good plan's, then feedback's, else that in force."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc.balancers.base import Balancer
from mpc.controller.telemetry import FaultError, FaultKind, Reading, Source
from mpc.model.conditions import PriceScale
from mpc.planning.deadline import DeadlineError
from mpc.planning.load_qp import InfeasibleError, SolverError, TimeLimitError
from mpc.planning.predicted_loads import ModelError

if TYPE_CHECKING:
    from marca_env.traffic.control import ControlObservation

log = logging.getLogger(__name__)
KINDS: tuple[tuple[type[Exception], FaultKind], ...] = (
    (InfeasibleError, "infeasible"),
    (TimeLimitError, "timeout"),
    (SolverError, "solver"),
    (DeadlineError, "timeout"),
    (ModelError, "model"),
)


def kind_of(error: Exception) -> FaultKind:
    """What kind of event an exception is."""
    if isinstance(error, FaultError):
        return error.kind
    return next((kind for cause, kind in KINDS if isinstance(error, cause)), "internal")


class KeptPlan(NamedTuple):
    """What is left of a plan: log prices and expected loads in budgets, both (N,G)."""

    log_prices: np.ndarray
    loads: np.ndarray

    def shifted(self, minutes: int) -> KeptPlan | None:
        """The plan some minutes later, its last minute repeated; ``None`` when it is used up."""
        n = len(self.log_prices)
        if minutes > n:
            return None
        index = np.minimum(np.arange(n) + minutes, n - 1)
        return KeptPlan(self.log_prices[index], self.loads[index])


class Fallback:
    """Keeps the last good plan and gives a price whatever happens.

    Args:
        balancer: feedback, for when the plan no longer serves.
        scale: of the model's prices.
        hold_minutes: minutes in a row that the plan serves.
        hold_band: distance of the load from the plan's, in budgets, beyond which it does not.

    Attributes:
        plan: from the coming minute on; ``None`` without a usable one.
        faults: minutes in a row without a plan of their own.
    """

    def __init__(self, balancer: Balancer, scale: PriceScale, hold_minutes: int, hold_band: float) -> None:
        self.balancer, self.scale, self.hold_minutes, self.hold_band = balancer, scale, hold_minutes, hold_band
        self.reset()

    def reset(self) -> None:
        self.balancer.reset()
        self.plan: KeptPlan | None = None
        self._expected: np.ndarray | None = None  # (G,) load of the minute that just ran, in budgets
        self.faults = 0

    def keep(self, plan: KeptPlan) -> None:
        """Remember a plan whose first minute is about to run."""
        self.plan, self._expected, self.faults = plan.shifted(1), plan.loads[0], 0

    def skip(self, minutes: int) -> None:
        """Minutes went by that nobody saw."""
        self.plan = None if self.plan is None else self.plan.shifted(minutes)

    def price(
        self, observation: ControlObservation, reading: Reading | None, in_force: np.ndarray
    ) -> tuple[np.ndarray, Source]:
        """Prices (G,) for the coming minute and where they come from.

        Args:
            observation: as it came.
            reading: what of it can be believed; ``None``: nothing.
            in_force: (G,) prices as they were set last.
        """
        self.faults += 1
        if self.plan is not None and self.faults <= self.hold_minutes and self._as_expected(reading):
            plan = self.plan
            self.plan, self._expected = plan.shifted(1), plan.loads[0]
            return self.scale.to_price(plan.log_prices[0]), "plan"
        self.plan = self._expected = None
        if reading is None:
            return in_force, "held"
        try:
            prices = self.balancer.update(dataclasses.replace(observation, **reading.fields()))
            return np.asarray(prices, dtype=np.float64).reshape(in_force.shape), "feedback"
        except Exception as error:  # the last resort must not fail
            log.error("the fallback balancer failed: %s: %s", type(error).__name__, error)
            return reading.prices, "held"

    def _as_expected(self, reading: Reading | None) -> bool:
        """Whether the load is near what the plan expected of it; without a reading it is taken to be."""
        if reading is None or self._expected is None:
            return True
        return bool(np.all(np.abs(reading.load / reading.budget - self._expected) <= self.hold_band))
