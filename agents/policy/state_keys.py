"""Keys of states: what an allocation policy computes and remembers its values by."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.validation import as_array


class StateKeys:
    """Distinct observable states of requests, as numbers or, where features are numbers, as rows.

    Hidden features have no influence on a policy: their columns may be left out.

    Args:
        scenario: the recommender.

    Attributes:
        n_states: number of observable states; ``None`` where features are numbers.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._visible = scenario.observable_columns
        self._sizes = tuple(feature.size for feature in scenario.features if not feature.hidden)
        self.n_states = math.prod(self._sizes) if scenario.is_categorical else None

    def complete(self, states: np.ndarray) -> np.ndarray:
        """Return checked states (B, W) whose hidden columns are 0; they may be left out, (B, visible).

        Raises:
            InputError: another shape, or a code or number out of range.
        """
        states = as_array(states)
        if states.ndim != 2:
            raise InputError(f"states have shape {states.shape}; pass an array of shape (requests, features)")
        width = len(self.scenario.state_columns)
        if len(self._visible) == width:
            return self.scenario.check_states(states)
        given = self._visible if states.shape[1] == width else slice(None)
        filled = np.zeros((len(states), width), states.dtype)
        if states.shape[1] in (width, len(self._visible)):
            filled[:, self._visible] = states[:, given]
            return self.scenario.check_states(filled)
        return self.scenario.check_states(states)  # refuses the shape

    def distinct(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys of the distinct states of (B, W), and for each request its index among them.

        Raises:
            InputError: another shape, or a code or number out of range.
        """
        complete = self.complete(states)
        if self.n_states is None:
            keys, index = np.unique(complete, axis=0, return_inverse=True)
        else:
            codes = np.ravel_multi_index(tuple(complete[:, self._visible].T), self._sizes)
            keys, index = np.unique(codes, return_inverse=True)
        return keys, index.reshape(-1)

    def states(self, keys: np.ndarray) -> np.ndarray:
        """Return the states (U, W) of keys."""
        if self.n_states is None:
            return keys
        states = np.zeros((len(keys), len(self.scenario.state_columns)), dtype=np.int64)
        states[:, self._visible] = np.stack(np.unravel_index(keys, self._sizes), 1)
        return states


class StateCache:
    """Cached function of state codes, (U,) → (U, …); it caches only if the values of all states fit in memory.

    Args:
        compute: the function.
        n_states: number of states.
        limit: maximum number of cached numbers.
    """

    def __init__(self, compute: Callable[[np.ndarray], np.ndarray], n_states: int, limit: int) -> None:
        self.compute, self.n_states, self.limit = compute, n_states, limit if n_states <= limit else 0
        self.clear()

    def clear(self) -> None:
        """Forget all values."""
        self.table: np.ndarray | None = None
        self.is_cached = np.zeros(self.n_states if self.limit else 0, dtype=bool)

    @property
    def cached_share(self) -> float:
        """Share of the states whose values are cached; 0 where none are."""
        return float(self.is_cached.mean()) if self.limit else 0.0

    def get(self, codes: np.ndarray) -> np.ndarray:
        """Return the values of ``codes``; values that are not cached yet are computed together."""
        if not self.limit:
            return self.compute(codes)
        new = codes[~self.is_cached[codes]]
        if len(new) or self.table is None:
            values = self.compute(new)
            if self.table is None and math.prod(values.shape[1:]) * self.n_states > self.limit:
                self.limit = 0
                return values
            if self.table is None:
                self.table = np.empty((self.n_states, *values.shape[1:]), values.dtype)
            self.table[new], self.is_cached[new] = values, True
        return self.table[codes]
