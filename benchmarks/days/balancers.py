"""Balancers that `marca balance` compares: built-in ones by name, and a user's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.days.calibration import Calibration
from benchmarks.days.user_code import BALANCER_METHODS, UserBalancer, check_names
from benchmarks.suite.user_methods import is_user_object
from marca_env.traffic.control import Balancer
from marca_env.traffic.days import DayScenario
from mpc import FeedbackBalancer, PrimalDualBalancer

CLAIRVOYANT = "clairvoyant"
SECOND_DAY = "mpc-second-day"
"""MPC that has controlled this system, with the same kinds of request, on the day before."""
METHODS: dict[str, dict[str, Any]] = {
    "static": {},
    "bisection": {},
    "feedback": {},
    "primal-dual": {},
    "slices": {},
    "mpc": {},
    "mpc-real-time": {"mode": "real_time"},
    "mpc-announced": {},
    SECOND_DAY: {},
    "mpc-shooting": {"method": "shooting"},
    "mpc-lbfgsb": {"method": "lbfgsb"},
    "mpc-slsqp": {"method": "slsqp"},
    "mpc-gradient": {"method": "gradient"},
    "mpc-cem": {"method": "cem"},
    CLAIRVOYANT: {},
}
"""Name → settings of the model-predictive ones."""


def build_balancer(
    name: Any, calibration: Calibration, day: DayScenario, settings: Mapping[str, Any] | None = None
) -> Balancer:
    """Build a calibrated balancer by its name in :data:`METHODS`, except the clairvoyant, or a user's own.

    Args:
        name: the method; a user's is its dotted path, class or object.
        calibration: what is tuned and fitted.
        day: the day to come; only its past, and what was announced, is used.
        settings: settings of the model-predictive ones, see :class:`mpc.MPCSettings`.

    Raises:
        InputError: an unknown method or setting.
    """
    check_methods([name])
    if is_user_object(name):
        return UserBalancer.build(name, calibration)
    history = day.traffic.history_days()
    if name == "static":
        return calibration.static()
    if name == "bisection":
        return calibration.bisection(calibration.actions)
    if name == "feedback":
        return FeedbackBalancer(calibration.feedback)
    if name == "primal-dual":
        return PrimalDualBalancer(calibration.rate)
    if name == "slices":
        return calibration.slices(history)
    options = {**METHODS[name], **(settings or {})}
    if "margin" not in options:  # tuning it takes a while
        options["margin"] = calibration.margin
    announced = day.announced if name == "mpc-announced" else None
    return calibration.mpc(calibration.forecaster(history, announced), **options)


def check_methods(names: Iterable[Any]) -> None:
    """Check the names of methods and a user's own.

    Raises:
        InputError: an unknown method, or an object without a balancer's methods; the message names the nearest one.
    """
    check_names("method", names, METHODS, BALANCER_METHODS)
