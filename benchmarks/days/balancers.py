"""Balancers that `marca balance` compares, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.days.calibration import Calibration
from marca_env.traffic.control import Balancer
from marca_env.traffic.days import DayScenario
from marca_env.utils.errors import InputError, unknown_option
from mpc import FeedbackBalancer, PrimalDualBalancer

CLAIRVOYANT = "clairvoyant"
METHODS: dict[str, dict[str, Any]] = {
    "static": {},
    "bisection": {},
    "feedback": {},
    "primal-dual": {},
    "slices": {},
    "mpc": {},
    "mpc-real-time": {"mode": "real_time"},
    "mpc-announced": {},
    "mpc-shooting": {"method": "shooting"},
    "mpc-lbfgsb": {"method": "lbfgsb"},
    "mpc-slsqp": {"method": "slsqp"},
    "mpc-gradient": {"method": "gradient"},
    "mpc-cem": {"method": "cem"},
    CLAIRVOYANT: {},
}
"""Name → settings of the model-predictive ones."""


def build_balancer(
    name: str, calibration: Calibration, day: DayScenario, settings: Mapping[str, Any] | None = None
) -> Balancer:
    """Build a calibrated balancer by its name in :data:`METHODS`, except the clairvoyant.

    Args:
        name: the method.
        calibration: what is tuned and fitted.
        day: the day to come; only its past, and what was announced, is used.
        settings: settings of the model-predictive ones, see :class:`mpc.MPCSettings`.

    Raises:
        InputError: an unknown method or setting.
    """
    check_methods([name])
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


def check_methods(names: Iterable[str]) -> None:
    """Check the names of methods.

    Raises:
        InputError: an unknown method; the message names the nearest one.
    """
    for name in names:
        if name not in METHODS:
            raise InputError(unknown_option("method", name, METHODS))
