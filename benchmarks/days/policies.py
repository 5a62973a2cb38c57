"""The five allocation policies that a simulated day compares, by name.

All use the same fitted models and the same calibration. None sees the true outcomes of the test requests: values are
learnt, costs are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.days.calibration import Calibration, ValueFunction
from marca_env.traffic.policies import FixedPolicy, Policy, PricedPolicy
from marca_env.utils.errors import InputError, unknown_option
from mpc import FeedbackBalancer

POLICIES = ("static", "dcaf", "rl-mpca", "marca-feedback", "marca-mpc")


def build_policy(
    name: str,
    calibration: Calibration,
    states: np.ndarray,
    values: ValueFunction | None = None,
    history: np.ndarray | None = None,
) -> Policy:
    """Build a calibrated policy.

    Args:
        name: one of :data:`POLICIES`.
        calibration: what is tuned and fitted.
        states: (M,F) of the requests to serve.
        values: values of the policy's learner; ``static`` and ``dcaf`` need none.
        history: (days,1440) requests per second of the days before, for the forecast of ``marca-mpc``; ``None``: no
            such days.

    Raises:
        InputError: an unknown name, or a budget that no action fits.
    """
    if name not in POLICIES:
        raise InputError(unknown_option("policy", name, POLICIES))
    if name == "static":
        return FixedPolicy(name, calibration.static_action)
    revenue, costs = calibration.engine.table(states)
    if name == "dcaf":
        actions = calibration.truncation_actions
        return PricedPolicy(name, revenue, costs, calibration.bisection(actions), actions)
    assert values is not None, f"{name} needs a value function"
    own = calibration.with_values(values)
    if name == "marca-mpc":
        past = np.empty((0, 0)) if history is None else history
        return PricedPolicy(name, values(states), costs, own.mpc(own.forecaster(past), margin=own.margin))
    return PricedPolicy(name, values(states), costs, FeedbackBalancer(own.feedback))


def load_values(checkpoint: str) -> ValueFunction:
    """Return the value function of a trained policy folder."""
    return AllocationPolicy.load(checkpoint).values


def needed_checkpoints(names: Sequence[str]) -> tuple[bool, bool]:
    """Return whether any of ``names`` needs the multi-agent checkpoint, and whether any needs the single-agent one."""
    return any(n.startswith("marca") for n in names), "rl-mpca" in names
