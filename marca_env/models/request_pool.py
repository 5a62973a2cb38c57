"""Kinds of request with the outcome and cost of every joint action: what allocation and simulation work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY


@dataclass(frozen=True)
class RequestPool:
    """Kinds of request, with the true outcome and cost of every joint action. M requests, J actions, G clusters."""

    scenario: Scenario
    states: np.ndarray
    """(M,F) int, columns in the scenario's order of features."""
    outcomes: Mapping[str, np.ndarray]
    """name → (M,J) expected per request: ``revenue`` (currency), and perhaps clicks, impressions, gmv."""
    costs: np.ndarray
    """(M,J,G) core-seconds per request."""
    weights: np.ndarray | None = None
    """(M,) how often each kind comes, in any unit; ``None``: all alike."""

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
            raise InputError(f"pool weights must be one non-negative number per request, {shape[:1]}, and not all zero")
        if shape[0] == 0:
            raise InputError("pool: no requests; give at least one")

    def chances(self, minute: int) -> np.ndarray:
        """(M,) probability of each kind at ``minute`` of the day: those of the current time window, feature ``w``.

        All kinds count where the scenario has no such feature, or the pool none of the window's requests.
        """
        weights = np.ones(len(self.states)) if self.weights is None else self.weights.astype(np.float64)
        if "w" in self.scenario.feature_names:
            column = self.scenario.feature_names.index("w")
            window = minute % MINUTES_PER_DAY * int(self.scenario.feature_sizes[column]) // MINUTES_PER_DAY
            within = weights * (self.states[:, column] == window)
            weights = within if within.sum() > 0 else weights
        return weights / weights.sum()
