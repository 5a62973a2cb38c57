"""Balancers: what sets the price λ of computation, minute by minute, so that the load stays at the budget."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpc.adaptive import AdaptationSettings, AdaptiveBalancer
    from mpc.balancers import (
        Balancer,
        DitheredBalancer,
        FeedbackBalancer,
        FeedbackSettings,
        PrimalDualBalancer,
        StaticBalancer,
    )
    from mpc.bisection import BisectionBalancer
    from mpc.controller import MPCBalancer
    from mpc.forecast import TrafficForecaster
    from mpc.settings import MPCSettings
    from mpc.slices import SliceBalancer
    from mpc.system_model import SystemModel

_HOMES = {
    "AdaptationSettings": "adaptive",
    "AdaptiveBalancer": "adaptive",
    "Balancer": "balancers",
    "BisectionBalancer": "bisection",
    "DitheredBalancer": "balancers",
    "FeedbackBalancer": "balancers",
    "FeedbackSettings": "balancers",
    "MPCBalancer": "controller",
    "MPCSettings": "settings",
    "PrimalDualBalancer": "balancers",
    "SliceBalancer": "slices",
    "StaticBalancer": "balancers",
    "SystemModel": "system_model",
    "TrafficForecaster": "forecast",
}
__all__ = [
    "AdaptationSettings",
    "AdaptiveBalancer",
    "Balancer",
    "BisectionBalancer",
    "DitheredBalancer",
    "FeedbackBalancer",
    "FeedbackSettings",
    "MPCBalancer",
    "MPCSettings",
    "PrimalDualBalancer",
    "SliceBalancer",
    "StaticBalancer",
    "SystemModel",
    "TrafficForecaster",
]


def __getattr__(name: str) -> Any:
    """Load the module of a public name at first use: the simple balancers need neither torch nor cvxpy."""
    if name in _HOMES:
        return getattr(import_module(f"mpc.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mpc' has no attribute {name!r}")
