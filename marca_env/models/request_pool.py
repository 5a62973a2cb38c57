"""A sample of requests with the outcome and cost of every joint action, for allocation and simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from marca_env.models.latency import Duration
from marca_env.models.lateness import PoolLateness
from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY

TIME_FEATURE = "w"
"""Name of the feature whose code is the time window of the day."""


@dataclass(frozen=True)
class RequestPool:
    """Distinct requests with the true outcome and cost of every joint action. M requests, J actions, G clusters."""

    scenario: Scenario
    states: np.ndarray
    """(M,W), columns as :attr:`Scenario.state_columns`."""
    outcomes: Mapping[str, np.ndarray]
    """Name → (M,J) expectation per request: ``revenue`` (currency) and optionally clicks, impressions, gmv."""
    costs: np.ndarray
    """(M,J,G) core-seconds per request."""
    weights: np.ndarray | None = None
    """(M,) relative frequency of each request, in any unit; ``None``: all equal."""
    lateness: PoolLateness | None = None
    """Service times, and outcomes without lateness, in a scenario with a latency limit; ``outcomes`` are then net of
    lateness where nothing waits (:meth:`with_limit`)."""

    @classmethod
    def with_limit(
        cls,
        scenario: Scenario,
        states: np.ndarray,
        on_time: Mapping[str, np.ndarray],
        costs: np.ndarray,
        service: Duration,
        weights: np.ndarray | None = None,
    ) -> RequestPool:
        """Return the pool of a scenario with a latency limit.

        Args:
            scenario: has ``latency``.
            states: see the class.
            on_time: name → (M,J) outcome of a request that is on time.
            costs: see the class.
            service: (M,J) service times without waiting.
            weights: see the class.
        """
        assert scenario.latency is not None
        lateness = PoolLateness(scenario.latency, service, on_time)
        return cls(scenario, states, lateness.net_outcomes(), costs, weights, lateness)

    def __post_init__(self) -> None:
        shape = (len(self.states), self.scenario.n_joint_actions)
        for name, table in self.outcomes.items():
            if table.shape != shape:
                raise InputError(f"pool outcome {name!r} has shape {table.shape}; expected {shape}")
        if self.costs.shape != (*shape, len(self.scenario.clusters)):
            raise InputError(
                f"pool costs have shape {self.costs.shape}; expected {(*shape, len(self.scenario.clusters))}"
            )
        if self.weights is not None and (
            self.weights.shape != shape[:1] or not np.all(self.weights >= 0) or not 0 < self.weights.sum() < np.inf
        ):
            raise InputError(
                f"pool weights have shape {self.weights.shape}; give {shape[:1]} non-negative numbers, not all zero"
            )
        if shape[0] == 0:
            raise InputError("pool: no requests; pass at least one")
        if self.lateness is not None:
            self.lateness.check(tuple(self.outcomes), shape)

    def __reduce__(self) -> tuple[Callable[..., RequestPool], tuple[Any, ...]]:
        """Pickle one column of each group of joint actions that do the same, which saves two thirds of the tables."""
        lateness = self.lateness
        timed: tuple[np.ndarray, ...] = ()
        if lateness is not None:
            timed = (*lateness.on_time.values(), lateness.service.mean, lateness.service.variance)
        columns, group = distinct_columns(self.scenario, *self.outcomes.values(), self.costs, *timed)
        outcomes = {name: table[:, columns] for name, table in self.outcomes.items()}
        lateness = None if lateness is None else lateness.take_actions(columns)
        tables = (outcomes, self.costs[:, columns], self.weights, group, lateness)
        return _expanded_pool, (self.scenario, self.states, *tables)

    @property
    def time_windows(self) -> tuple[np.ndarray, int] | None:
        """Time window of each request, feature ``w``, int (M,), and their number in a day; ``None`` without any."""
        scenario = self.scenario
        pairs = zip(scenario.features, scenario.feature_slices, strict=True)
        for feature, part in pairs:
            if feature.name == TIME_FEATURE and feature.kind == "category":
                return self.states[:, part.start].astype(np.int64), feature.size
        return None

    def probabilities(self, minute: int) -> np.ndarray:
        """Return (M,) the probability of each request at ``minute`` of the day.

        Only requests of the current time window, feature ``w``, can occur. If the scenario has no such feature, or the
        pool has no request of the window, all requests can.
        """
        weights = np.ones(len(self.states)) if self.weights is None else self.weights.astype(np.float64)
        if self.time_windows is not None:
            windows, size = self.time_windows
            within = weights * (windows == minute % MINUTES_PER_DAY * size // MINUTES_PER_DAY)
            weights = within if within.sum() > 0 else weights
        return weights / weights.sum()


def distinct_columns(scenario: Scenario, *tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one joint action of each group that does the same (J',), and the group of each joint action (J,).

    Recall lengths of channels that are off do nothing. Every joint action is its own group where one of the tables
    (M,J,…) differs within such a group.
    """
    encoder = InputEncoder(scenario)
    first, group = encoder.distinct_actions, encoder.distinct_of
    if all(np.array_equal(table[:, first][:, group], table) for table in tables):
        return first, group
    return np.arange(len(group)), np.arange(len(group))


def _expanded_pool(
    scenario: Scenario,
    states: np.ndarray,
    outcomes: Mapping[str, np.ndarray],
    costs: np.ndarray,
    weights: np.ndarray | None,
    group: np.ndarray,
    lateness: PoolLateness | None,
) -> RequestPool:
    """Return the pool whose tables hold one column of each group of joint actions."""
    expanded = {name: table[:, group] for name, table in outcomes.items()}
    lateness = None if lateness is None else lateness.take_actions(group)
    return RequestPool(scenario, states, expanded, costs[:, group], weights, lateness)
