"""A sample of requests with the outcome and cost of every joint action, for allocation and simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY


@dataclass(frozen=True)
class RequestPool:
    """Distinct requests with the true outcome and cost of every joint action. M requests, J actions, G clusters."""

    scenario: Scenario
    states: np.ndarray
    """(M,F) int, columns in the scenario's order of features."""
    outcomes: Mapping[str, np.ndarray]
    """Name → (M,J) expectation per request: ``revenue`` (currency) and optionally clicks, impressions, gmv."""
    costs: np.ndarray
    """(M,J,G) core-seconds per request."""
    weights: np.ndarray | None = None
    """(M,) relative frequency of each request, in any unit; ``None``: all equal."""

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

    def probabilities(self, minute: int) -> np.ndarray:
        """Return (M,) the probability of each request at ``minute`` of the day.

        Only requests of the current time window, feature ``w``, can occur. If the scenario has no such feature, or the
        pool has no request of the window, all requests can.
        """
        weights = np.ones(len(self.states)) if self.weights is None else self.weights.astype(np.float64)
        if "w" in self.scenario.feature_names:
            column = self.scenario.feature_names.index("w")
            window = minute % MINUTES_PER_DAY * int(self.scenario.feature_sizes[column]) // MINUTES_PER_DAY
            within = weights * (self.states[:, column] == window)
            weights = within if within.sum() > 0 else weights
        return weights / weights.sum()
