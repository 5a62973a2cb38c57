"""Decide for requests of a live client; a fault of one request never fails the others."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from agents.policy.allocation_policy import AllocationPolicy, DecidedActions
from benchmarks.serving.encoding import RequestEncoder
from benchmarks.serving.static_rule import StaticRule, options_of, sample_states
from marca_env.integration.feature_coding import FeatureCoder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import one_line

OK = "ok"
FALLBACK_REASONS = (
    "missing-feature",
    "unseen-value",
    "wrong-type",
    "model-fault",
    "time-out",
    "busy",
    "no-prices",
    "stale-prices",
    "guard-load",
    "guard-late",
    "guard-revenue",
)
"""Every status but ``ok``: why a request got the static action although the policy should have decided."""
POLICY, STATIC = "policy", "static"
CHUNK = 256
"""Requests that are decided together; the deadline is looked at between chunks."""
_MOST_WARMED = 100_000  # states
_WARM_CHUNK = 32  # states, so that another policy can decide in between
logger = logging.getLogger("marca.serve")


@dataclass(frozen=True)
class Decision:
    """What a request gets."""

    action: tuple[int, ...]
    """(D,) option indices to apply."""
    options: Mapping[str, Any]
    """Name of a decision → its option to apply."""
    status: str = OK
    """``ok``, or the reason of the fallback."""
    applied: str = STATIC
    """Source of the action: ``policy`` or ``static``."""
    message: str = ""
    """Details of a fallback."""
    policy_action: tuple[int, ...] | None = None
    """(D,) what the policy decided; ``None`` if it did not."""
    value: float = 0.0
    """Expected revenue of the applied action, currency."""
    costs: tuple[float, ...] = ()
    """(G,) expected cost of the applied action, core-seconds."""
    state: tuple[float, ...] = ()
    """(W,) encoded features; empty if they could not be read or were not needed."""


class Decider:
    """Decides for requests with a policy, and with the static rule where that fails.

    One thread at a time may call :meth:`decide`.

    Args:
        policy: the policy.
        scenario: its scenario.
        static_action: the static rule.
        coder: coding of raw features; ``None``: requests hold codes.

    Raises:
        InputError: the coding does not fit the scenario.
    """

    def __init__(
        self,
        policy: AllocationPolicy,
        scenario: Scenario,
        static_action: StaticRule,
        coder: FeatureCoder | None = None,
    ) -> None:
        self.policy, self.scenario, self.static_rule = policy, scenario, static_action
        self._encoder = RequestEncoder(scenario, coder)
        self._is_warm = False
        self._options = lru_cache(maxsize=65_536)(lambda action: options_of(scenario, action))

    def fallback(self, status: str, message: str = "") -> Decision:
        """Return the static rule with a reason."""
        rule = self.static_rule
        return Decision(
            rule.action, self._options(rule.action), status, STATIC, message, value=rule.value, costs=rule.costs
        )

    def decide(
        self,
        requests: Sequence[Any],
        prices: Sequence[float] | Mapping[str, float] | np.ndarray,
        *,
        enforced: Sequence[bool] | np.ndarray | None = None,
        seconds: float | None = None,
    ) -> list[Decision]:
        """Return a decision for every request, in their order.

        Args:
            requests: mappings from names of features to values; anything else gets the static action.
            prices: (G,) λ, currency per core-second, or the price of each cluster by its name.
            enforced: (B,) which requests get the policy's action; the others get the static one, with the policy's
                beside it. ``None``: all.
            seconds: time after which the requests that are left get the static action; ``None``: no limit.
        """
        end = None if seconds is None else time.monotonic() + seconds
        states, faults = self._encoder.encode(requests)
        decisions = [self.fallback(f.status, f.message) if f is not None else None for f in faults]
        rows = np.array([k for k, fault in enumerate(faults) if fault is None], dtype=np.int64)
        mask = np.ones(len(requests), dtype=bool) if enforced is None else np.asarray(enforced, dtype=bool)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            if end is not None and time.monotonic() > end:
                decided = [self.fallback("time-out", f"not decided within {seconds:g} s")] * len(part)
            else:
                decided = self._decide_states(states[part], prices, mask[part])
            for k, decision in zip(part, decided, strict=True):
                decisions[k] = decision
        return [decision for decision in decisions if decision is not None]

    def _decide_states(self, states: np.ndarray, prices: Any, enforced: np.ndarray) -> list[Decision]:
        """Decide for states (B, W); if that fails, halve them until only the faulty ones get the static action."""
        try:
            decided = self.policy.decide_with_estimates(states, prices, self.static_rule.action)
        except Exception as error:  # whatever a model or a user's module raises must not fail the other requests
            if len(states) > 1:
                half = len(states) // 2
                first = self._decide_states(states[:half], prices, enforced[:half])
                return first + self._decide_states(states[half:], prices, enforced[half:])
            logger.warning("model fault: %s: %s", type(error).__name__, one_line(error, 300))
            return [self.fallback("model-fault", one_line(error, 300))]
        return self._decisions(states, decided, enforced)

    def _decisions(self, states: np.ndarray, decided: DecidedActions, enforced: np.ndarray) -> list[Decision]:
        values = np.where(enforced, decided.values, decided.fixed_values).tolist()
        costs = np.where(enforced[:, None], decided.costs, decided.fixed_costs).tolist()
        fixed = self.static_rule.action
        decisions = []
        for k, (action, state) in enumerate(zip(decided.actions.tolist(), states.tolist(), strict=True)):
            best = tuple(action)
            applied = best if enforced[k] else fixed
            decisions.append(
                Decision(
                    applied,
                    self._options(applied),
                    OK,
                    POLICY if enforced[k] else STATIC,
                    policy_action=best,
                    value=values[k],
                    costs=tuple(costs[k]),
                    state=tuple(state),
                )
            )
        return decisions

    def options(self, action: tuple[int, ...]) -> Mapping[str, Any]:
        """Return the option that each decision takes in an action, by its name."""
        return self._options(action)

    @property
    def is_warm(self) -> bool:
        """Whether the policy remembers every state, so that no decision runs a model."""
        return self._is_warm

    def warm(self, states: np.ndarray | None = None) -> None:
        """Compute what the policy remembers, so that the first requests need not wait.

        Args:
            states: (B, W) states; ``None``: all, where features are categories and their number is moderate.
        """
        if states is None:
            states = all_states(self.scenario)
        for start in range(0, len(states), _WARM_CHUNK):
            part = states[start : start + _WARM_CHUNK]
            self._decide_states(part, [0.0] * len(self.scenario.clusters), np.ones(len(part), dtype=bool))
        self._is_warm = self.policy.remembered_share == 1.0


def all_states(scenario: Scenario) -> np.ndarray:
    """Return every observable state (B, W) of a scenario of categories; a sample where they are too many or numbers."""
    sizes = [1 if feature.hidden else feature.size for feature in scenario.features]
    if not scenario.is_categorical or math.prod(sizes) > _MOST_WARMED:
        return sample_states(scenario, 1)
    return np.indices(sizes).reshape(len(sizes), -1).T.copy()
