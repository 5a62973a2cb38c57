"""Predictions of the models by state and joint action: remembered where states are codes, made in batches elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""States (B,W) and actions (B,D) → predictions (B, R+G+1) float32."""

_LARGEST_TABLE = 2**24
"""Number of pairs up to which each pair has its own row."""
_SLOTS = 2**20
"""Rows, a power of two, that the pairs of a larger scenario share; the latest pair overwrites the earlier one."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: a hash multiplier that puts neighbouring codes far apart."""


class PredictionCache:
    """Predictions by pair of state and joint action.

    Joint actions with the same effect share an entry; for example, the recall length of a channel that is off has no
    effect. J' is the number of distinct actions.

    Args:
        scenario: the system.
        predict: makes the predictions that are not stored yet.
    """

    def __init__(self, scenario: Scenario, predict: Predict) -> None:
        self.scenario = scenario
        self.predict = predict
        encoder = InputEncoder(scenario)
        self.distinct_of: np.ndarray = encoder.distinct_of  # (J,) in 0 … J' − 1
        self.distinct = encoder.distinct_actions  # (J',) one joint action of each group
        self.shape = (*scenario.feature_sizes.tolist(), len(self.distinct))
        n_pairs = math.prod(self.shape)
        self._numbered, self._shared = n_pairs < 2**62, n_pairs > _LARGEST_TABLE
        n_rows = _SLOTS if self._shared else n_pairs
        if self._numbered:
            self._strides = np.cumprod([1, *self.shape[:0:-1]], dtype=np.int64)[:0:-1]  # of the features
        width = len(scenario.result_columns) + len(scenario.clusters) + 1
        self.table = np.zeros((n_rows, width), dtype=np.float32)  # the system allocates a page when it is first written
        self.stored_codes = np.zeros(n_rows, dtype=np.int64)  # code of the row's pair plus 1; 0 for an empty row

    def __reduce__(self) -> tuple[type[PredictionCache], tuple[Scenario, Predict]]:
        """Pickle an empty cache: predictions can be made again, and the tables take tens of megabytes."""
        return type(self), (self.scenario, self.predict)

    def look_up(self, states: np.ndarray, joint: np.ndarray) -> np.ndarray:
        """Return predictions (B, R+G+1) float32 for states (B,F) and indices of joint actions (B,)."""
        if not self._numbered:  # too many pairs to number them with 64 bits: predict without a cache
            pairs = np.column_stack([states, self.distinct_of[joint]])
            new, inverse = np.unique(pairs, axis=0, return_inverse=True)
            return self._predict(new[:, :-1], new[:, -1])[inverse.reshape(-1)]
        code = states @ self._strides + self.distinct_of[joint]
        row = self._row_of(code)
        missing = self.stored_codes[row] != code + 1
        if not missing.any():
            return self.table[row]
        new, inverse = np.unique(code[missing], return_inverse=True)
        *columns, action = np.unravel_index(new, self.shape)
        new_predictions, predictions = self._predict(np.stack(columns, axis=1), action), self.table[row]
        predictions[missing] = new_predictions[inverse]
        new_row = self._row_of(new)
        self.table[new_row], self.stored_codes[new_row] = new_predictions, new + 1
        return predictions

    def _predict(self, states: np.ndarray, distinct: np.ndarray) -> np.ndarray:
        """Predict for states (B,F) and indices of distinct actions (B,)."""
        return self.predict(states, self.scenario.joint_actions[self.distinct[distinct]])

    def _row_of(self, code: np.ndarray) -> np.ndarray:
        """Return the row of each pair: its code, or a hash of it in a shared table."""
        if not self._shared:
            return code
        return ((code.astype(np.uint64) * _SPREAD) >> np.uint64(65 - _SLOTS.bit_length())).astype(np.int64)


class DirectPredictions:
    """Predictions of a scenario whose features are numbers: nothing is remembered, because states seldom repeat.

    Args:
        scenario: the system.
        predict: makes the predictions.
    """

    def __init__(self, scenario: Scenario, predict: Predict) -> None:
        self.scenario, self.predict = scenario, predict
        encoder = InputEncoder(scenario)
        self.distinct_of: np.ndarray = encoder.distinct_of  # (J,) in 0 … J' − 1
        self.distinct = encoder.distinct_actions  # (J',) one joint action of each group

    def look_up(self, states: np.ndarray, joint: np.ndarray) -> np.ndarray:
        """Return predictions (B, R+G+1) float32 for states (B,W) and indices of joint actions (B,)."""
        return self.predict(states, self.scenario.joint_actions[self.distinct[self.distinct_of[joint]]])
