"""What the models say of each (state, joint action), asked once and remembered."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario

_LARGEST_TABLE = 2**24
"""Pairs up to which each has a place of its own."""
_SLOTS = 2**20
"""Places, a power of two, that the pairs of a larger scenario share: the last to come stays."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: neighbours land far apart."""


class Memory:
    """Rows of ``ask`` by pair. Actions that do the same share an entry: the recall length of a channel that is off does
    nothing. J' distinct actions."""

    def __init__(self, scenario: Scenario, ask: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.scenario = scenario
        self.ask = ask
        encoder = InputEncoder(scenario)
        self.distinct_of: np.ndarray = encoder.distinct_of  # (J,) in 0 … J' − 1
        self.distinct = np.unique(encoder.distinct_of, return_index=True)[1]  # (J',) a joint action of each
        self.shape = (*scenario.feature_sizes.tolist(), len(self.distinct))
        n_pairs = math.prod(self.shape)
        self._numbered, self._shared = n_pairs < 2**62, n_pairs > _LARGEST_TABLE
        places = _SLOTS if self._shared else n_pairs
        if self._numbered:
            self._strides = np.cumprod([1, *self.shape[:0:-1]], dtype=np.int64)[:0:-1]  # of the features
        width = len(scenario.stages) + len(scenario.clusters) + 1
        self.table = np.zeros((places, width), dtype=np.float32)  # pages are only taken up when written
        self.holds = np.zeros(places, dtype=np.int64)  # number of the pair, and 1; 0 where there is none

    def look_up(self, states: np.ndarray, joint: np.ndarray) -> np.ndarray:
        """States (B,F) and rows of the joint actions (B,) → (B, S+G+1) float32."""
        if not self._numbered:  # too many for 64 bits
            pairs = np.column_stack([states, self.distinct_of[joint]])
            new, inverse = np.unique(pairs, axis=0, return_inverse=True)
            return self._ask(new[:, :-1], new[:, -1])[inverse.reshape(-1)]
        code = states @ self._strides + self.distinct_of[joint]
        place = self._place(code)
        missing = self.holds[place] != code + 1
        if not missing.any():
            return self.table[place]
        new, inverse = np.unique(code[missing], return_inverse=True)
        *columns, action = np.unravel_index(new, self.shape)
        rows, found = self._ask(np.stack(columns, axis=1), action), self.table[place]
        found[missing] = rows[inverse]
        kept = self._place(new)
        self.table[kept], self.holds[kept] = rows, new + 1
        return found

    def _ask(self, states: np.ndarray, distinct: np.ndarray) -> np.ndarray:
        return self.ask(states, self.scenario.joint_actions[self.distinct[distinct]])

    def _place(self, code: np.ndarray) -> np.ndarray:
        if not self._shared:
            return code
        return ((code.astype(np.uint64) * _SPREAD) >> np.uint64(65 - _SLOTS.bit_length())).astype(np.int64)
