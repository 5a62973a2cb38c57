"""Decide a table of requests at given prices: decisions, status and, on request, expected value and costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.serving.request_states import OK, RequestStates
from marca_env.utils.errors import InputError
from marca_env.utils.validation import check_codes, prices_by_cluster

STATUS, STATUS_COLUMN, VALUE = "status", "status_column", "value"
_CHUNK_NUMBERS = 8_000_000  # values of joint actions that are computed together
_LABELS = pa.dictionary(pa.int32(), pa.string())


class BatchDecider:
    """Decider of tables of requests, all at the same prices.

    The decisions equal those of :meth:`agents.AllocationPolicy.decide`, however the requests are cut into tables. A
    request with an invalid value gets the static action, and its status says why.

    Args:
        policy: the policy.
        states: reader of the requests' states.
        prices: (G,) λ, currency per core-second, in the scenario's order of clusters, or by name.
        static_action: (D,) option indices for requests with an invalid value.
        keys: columns of the requests that are copied to the result.
        with_values: whether the result has the expected value and costs.
    """

    def __init__(
        self,
        policy: AllocationPolicy,
        states: RequestStates,
        prices: Any,
        static_action: Sequence[int],
        keys: Sequence[str] = (),
        *,
        with_values: bool = False,
    ) -> None:
        self.policy, self.scenario, self.states = policy, policy.scenario, states
        self.prices = prices_by_cluster(prices, self.scenario.cluster_names, "--prices")
        names, sizes = self.scenario.decision_names, self.scenario.action_shape
        self.static_action = check_codes("static action", np.array([static_action]), names, sizes)[0]
        self.keys, self.with_values = tuple(keys), with_values
        self._options = [_option_array(decision.options) for decision in self.scenario.decisions]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a table of requests needs."""
        return tuple(dict.fromkeys((*self.keys, *self.states.columns)))

    def schema(self, requests: pa.Schema, where: str) -> pa.Schema:
        """Return the schema of the result for requests of a schema.

        Args:
            requests: schema of the requests.
            where: their source, for messages.

        Raises:
            InputError: a column is missing, appears twice, or is a key with the name of a column of the result.
        """
        for name in self.columns:
            if (count := requests.names.count(name)) != 1:
                fault = "is missing" if count == 0 else "appears twice"
                raise InputError(
                    f"{where}: column {name!r} {fault} (columns: {', '.join(requests.names)}); requests need "
                    f"{', '.join(self.columns)}"
                )
        own = self._own_schema()
        for name in self.keys:
            if name in own.names:
                raise InputError(f"{where}: key {name!r} has the name of a column of the result; rename it")
        return pa.schema([requests.field(name) for name in self.keys] + list(own))

    def decide(self, requests: pa.Table) -> pa.Table:
        """Return the decisions of B requests, in their order.

        Args:
            requests: a table with :attr:`columns`.

        Returns:
            B rows: the keys; for each decision ``<name>``, the option's index as in a request log, and
            ``<name>_option``, the option; ``status``, and ``status_column`` where it is not ``ok``; with values,
            ``value`` (currency per request) and ``cost_<cluster>`` (core-seconds per request), of valid rows.
        """
        frame = requests.select(self.states.columns).to_pandas(integer_object_nulls=True)
        read = self.states.read(frame)
        valid = read.status == OK
        actions = np.tile(self.static_action, (len(frame), 1))
        numbers = np.full((len(frame), 1 + len(self.scenario.clusters)), np.nan)
        if valid.any():
            distinct, index = _distinct(read.states)
            decided, estimates = self._decide_states(distinct)
            actions[valid], numbers[valid] = decided[index], estimates[index]
        arrays = [requests.column(name) for name in self.keys]
        for k, options in enumerate(self._options):
            arrays += [pa.array(actions[:, k]), options.take(pa.array(actions[:, k]))]
        arrays += [pa.array(labels, pa.string()).dictionary_encode() for labels in (read.status, read.column)]
        if self.with_values:
            arrays += [pa.array(column, from_pandas=True) for column in numbers.T]
        return pa.Table.from_arrays(arrays, schema=self.schema(requests.schema, "requests"))

    def _own_schema(self) -> pa.Schema:
        fields = []
        for decision, options in zip(self.scenario.decisions, self._options, strict=True):
            fields += [(decision.name, pa.int64()), (f"{decision.name}_option", options.type)]
        fields += [(STATUS, _LABELS), (STATUS_COLUMN, _LABELS)]
        if self.with_values:
            fields += [(name, pa.float64()) for name in (VALUE, *(f"cost_{c}" for c in self.scenario.cluster_names))]
        return pa.schema(fields)

    def _decide_states(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the actions (U, D) of states and, with values, value and costs (U, 1+G), else nan."""
        actions, numbers = [], []
        for part in self._chunks(len(states)):
            if self.with_values:
                decided = self.policy.decide_with_estimates(states[part], self.prices, self.static_action)
                actions.append(decided.actions)
                numbers.append(np.column_stack([decided.values, decided.costs]))
            else:
                actions.append(self.policy.decide(states[part], self.prices))
        if not self.with_values:
            numbers = [np.full((len(states), 1 + len(self.scenario.clusters)), np.nan)]
        return np.concatenate(actions), np.concatenate(numbers)

    def _chunks(self, n: int) -> Iterator[slice]:
        step = max(1, _CHUNK_NUMBERS // (self.scenario.n_joint_actions * (1 + len(self.scenario.clusters))))
        return (slice(start, start + step) for start in range(0, n, step))


def _distinct(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows (U, W) of states in order of appearance, and the index of each row among them."""
    frame = pd.DataFrame(states)
    index = frame.groupby(list(frame.columns), sort=False).ngroup().to_numpy()
    return states[np.unique(index, return_index=True)[1]], index


def _option_array(options: Sequence[Any]) -> pa.Array:
    """Return options as numbers, texts or lists of texts; options of several kinds become texts."""
    try:
        return pa.array(list(options))
    except pa.ArrowException:
        return pa.array([str(option) for option in options])
