"""The allocation policies that a simulated day compares: five by name, and a user's own.

All use the same fitted models and the same calibration. None sees the true outcomes of the test requests: values are
learnt, costs are predicted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.days.calibration import Calibration, ValueFunction
from benchmarks.days.user_code import POLICY_METHODS, UserPolicy, check_names
from benchmarks.suite.user_methods import is_user_object
from marca_env.traffic.control import Balancer
from marca_env.traffic.policies import FixedPolicy, InTurnPolicy, Policy, PricedPolicy
from mpc import FeedbackBalancer

POLICIES = ("static", "dcaf", "rl-mpca", "marca-feedback", "marca-mpc")


def check_policies(policies: Iterable[Any]) -> None:
    """Check the names of policies and a user's own.

    Raises:
        InputError: an unknown name, or an object without a policy's methods.
    """
    check_names("policy", policies, POLICIES, POLICY_METHODS)


def build_policy(
    name: Any,
    calibration: Calibration,
    states: np.ndarray,
    values: ValueFunction | None = None,
    history: np.ndarray | None = None,
) -> Policy:
    """Build a calibrated policy.

    Args:
        name: one of :data:`POLICIES`, or a user's policy: its dotted path, class or object.
        calibration: what is tuned and fitted.
        states: (M,F) of the requests to serve.
        values: values of the policy's learner; ``static`` and ``dcaf`` need none.
        history: (days,1440) requests per second of the days before, for the forecast of ``marca-mpc``; ``None``: no
            such days.

    Raises:
        InputError: an unknown name, or a budget that no action fits.
    """
    check_policies([name])
    if is_user_object(name):
        return UserPolicy.build(name, calibration, states)
    if name == "static":
        return FixedPolicy(name, calibration.static_action)
    revenue, costs = calibration.engine.table(states)
    if name == "dcaf":
        actions = calibration.truncation_actions
        return PricedPolicy(name, revenue, costs, calibration.bisection(actions), actions)
    assert values is not None, f"{name} needs a value function"
    own = calibration.with_values(values)
    balancer: Balancer = FeedbackBalancer(own.feedback)
    if name == "marca-mpc":
        past = np.empty((0, 0)) if history is None else history
        balancer = own.mpc(own.forecaster(past), margin=own.margin)
    engine, learner = calibration.engine, getattr(values, "__self__", None)
    if engine.records is not None and engine.scenario.signals and isinstance(learner, AllocationPolicy):
        return InTurnPolicy(name, engine.scenario, learner.tables_in_turn(states, engine.results), balancer)
    return PricedPolicy(name, values(states), costs, balancer)


def load_values(checkpoint: str, trust: Collection[str] = ()) -> ValueFunction:
    """Return the value function of a trained policy folder; ``trust``: dotted paths of code that it may name."""
    return AllocationPolicy.load(checkpoint, trust=trust).values


def needed_checkpoints(names: Sequence[Any]) -> tuple[bool, bool]:
    """Return whether any of ``names`` needs the multi-agent checkpoint, and whether any needs the single-agent one."""
    own = [name for name in names if not is_user_object(name)]
    return any(name.startswith("marca") for name in own), "rl-mpca" in own
