"""Policies and balancers of a user in a simulated day, with checks of what they return.

Shapes: M requests, F features, D decisions, G clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from benchmarks.days.calibration import Calibration
from benchmarks.suite.user_methods import (
    build_user_object,
    find_user_object,
    is_user_object,
    user_faults,
    user_object_name,
)
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.control import Balancer, ControlObservation
from marca_env.traffic.policies import PricedPolicy
from marca_env.utils.errors import InputError, one_line, unknown_option
from marca_env.utils.validation import check_codes, prices_by_cluster
from mpc import FeedbackBalancer

POLICY_METHODS, BALANCER_METHODS = ("decide(states, prices)",), ("update(observation)",)
"""Methods that a user's policy, and a user's balancer, must have."""
_TRIED = 2  # requests of the first call, before anything long


class UserAllocation(Protocol):
    """What a user's policy must have; ``update`` and ``reset`` of a balancer are optional.

    A policy that has ``update(observation)`` sets its own prices; another one gets those of the tuned feedback.
    """

    def decide(self, states: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """Return the option of every decision for each request.

        Args:
            states: (M,F) int, codes of the features in the scenario's order.
            prices: (G,) λ in force, currency per core-second, in the scenario's order of clusters.

        Returns:
            (M,D) int, option indices in the scenario's order of decisions.
        """
        ...


def check_names(kind: str, methods: Iterable[Any], valid: Iterable[str], needs: tuple[str, ...]) -> None:
    """Check names of methods and a user's objects; nothing is built.

    Args:
        kind: ``policy`` or ``method``, for messages.
        methods: names, dotted paths, classes or objects.
        valid: built-in names.
        needs: methods that a user's object must have.

    Raises:
        InputError: an unknown name, an object that lacks a method, or two methods of one name.
    """
    valid, seen = tuple(valid), set()
    for method in methods:
        if is_user_object(method):
            find_user_object(method, "policy" if needs == POLICY_METHODS else "balancer", needs)
        elif method not in valid:
            hint = unknown_option(kind, method, valid)
            raise InputError(f"{hint}; or the dotted path of your own class, such as my_module.Mine")
        name = user_object_name(method)
        if name in seen:
            raise InputError(f"{kind} {name!r} is given twice; give each once, your own with an attribute `name`")
        seen.add(name)


class UserBalancer:
    """A user's balancer, whose observations are copies and whose prices are checked.

    Args:
        name: for messages.
        balancer: the user's object.
        scenario: names the clusters.
        kind: ``balancer``, or ``policy`` for a policy that sets its own prices.
    """

    def __init__(self, name: str, balancer: Any, scenario: Scenario, kind: str = "balancer") -> None:
        self.name, self.balancer, self.scenario, self.kind = name, balancer, scenario, kind
        self._minute = 0

    @classmethod
    def build(cls, method: Any, calibration: Calibration) -> UserBalancer:
        """Build the balancer that a dotted path, a class or an object stands for."""
        balancer = build_user_object(method, "balancer", BALANCER_METHODS, calibration)
        return cls(user_object_name(method), balancer, calibration.scenario)

    def reset(self) -> None:
        """Start a day."""
        self._minute = 0
        _call_reset(self.kind, self.name, self.balancer)

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Return the user's prices (G,).

        Raises:
            InputError: the user's code failed, or its prices are not G finite numbers from 0.
        """
        what, where = f"{self.kind} {self.name}", f"minute {self._minute}"
        self._minute += 1
        with user_faults(what, where):
            prices = self.balancer.update(_copied(observation))
        try:
            return prices_by_cluster(prices, self.scenario.cluster_names)
        except InputError as error:
            raise InputError(f"{what}, {where}: update() returned {one_line(error)}") from None

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the user's object, such as ``events`` of a balancer that derives from ours."""
        if name.startswith("_") or name == "balancer":
            raise AttributeError(name)
        return getattr(self.balancer, name)


class UserPolicy:
    """A user's policy, whose actions are checked.

    Args:
        name: for tables.
        policy: the user's object, see :class:`UserAllocation`.
        states: (M,F) of the requests to serve.
        start: policy whose prices the day starts with, and whose balancer sets the prices.
        scenario: names the decisions.
    """

    def __init__(self, name: str, policy: Any, states: np.ndarray, start: PricedPolicy, scenario: Scenario) -> None:
        self.name, self.policy, self.states, self.start, self.scenario = name, policy, states, start, scenario
        self.balancer = start.balancer
        self._minute = 0

    @classmethod
    def build(cls, method: Any, calibration: Calibration, states: np.ndarray) -> UserPolicy:
        """Build the policy that a dotted path, a class or an object stands for."""
        policy, name = build_user_object(method, "policy", POLICY_METHODS, calibration), user_object_name(method)
        scenario = calibration.scenario
        zeros = np.zeros(len(scenario.clusters))
        _decide(name, policy, scenario, states[:_TRIED], zeros, f"a first call with {len(states[:_TRIED])} requests")
        balancer: Balancer
        if callable(getattr(policy, "update", None)):
            balancer = UserBalancer(name, policy, scenario, "policy")
        else:
            balancer = FeedbackBalancer(calibration.feedback)
        start = PricedPolicy(name, *calibration.engine.table(states), balancer)
        return cls(name, policy, states, start, scenario)

    def begin(self, budgets: np.ndarray, qps: float, chances: np.ndarray) -> np.ndarray:
        """Start a day; return the prices that fit the budget exactly at first, by the fitted models."""
        self._minute = 0
        prices = self.start.begin(budgets, qps, chances)
        if not isinstance(self.balancer, UserBalancer):
            _call_reset("policy", self.name, self.policy)
        return prices

    def choose(self, observation: ControlObservation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the joint action of each of ``rows`` by the user's policy, and the prices (G,).

        Raises:
            InputError: the user's code failed, or its actions are not option indices (M,D).
        """
        prices = self.balancer.update(observation)
        where = f"minute {self._minute}"
        self._minute += 1
        return _decide(self.name, self.policy, self.scenario, self.states[rows], prices.copy(), where), prices


def _decide(
    name: str, policy: Any, scenario: Scenario, states: np.ndarray, prices: np.ndarray, where: str
) -> np.ndarray:
    """Return the joint action (M,) that a user's policy chooses for each of ``states`` (M,F).

    Raises:
        InputError: the user's code failed, or it did not return option indices (M,D).
    """
    with user_faults(f"policy {name}", where):
        actions = np.asarray(policy.decide(states, prices))
    shape = (len(states), len(scenario.decisions))
    if actions.shape != shape:
        raise InputError(
            f"policy {name}, {where}: decide() returned shape {actions.shape}; return {shape}, an option for each of "
            f"the decisions {', '.join(scenario.decision_names)}"
        )
    if actions.dtype.kind == "f" and np.all(np.isfinite(actions)) and np.array_equal(actions, actions.round()):
        actions = actions.astype(np.int64)
    try:
        check_codes("action", actions, scenario.decision_names, scenario.action_shape)
    except InputError as error:
        raise InputError(f"policy {name}, {where}: decide() returned: {one_line(error)}") from None
    return scenario.joint_index(actions)


def _call_reset(kind: str, name: str, user: Any) -> None:
    if callable(reset := getattr(user, "reset", None)):
        with user_faults(f"{kind} {name}", "reset()"):
            reset()


def _copied(observation: ControlObservation) -> ControlObservation:
    """Return an observation whose arrays a user may change."""
    arrays = ("load", "budget", "degradation", "backlog", "prices")
    copies: dict[str, Any] = {name: getattr(observation, name).copy() for name in arrays}
    return dataclasses.replace(observation, **copies)
