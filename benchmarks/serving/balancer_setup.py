"""Balancers for live traffic: built from a scenario, a system model and past days, without a simulated day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.days.calibration import Calibration
from benchmarks.days.compare_balancers import check_model
from benchmarks.days.user_code import BALANCER_METHODS, UserBalancer, check_names
from benchmarks.suite.user_methods import is_user_object
from marca_env.logs.log_files import read_system_log
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.control import Balancer
from marca_env.utils.errors import InputError
from marca_env.utils.units import MINUTES_PER_DAY
from mpc import (
    AdaptiveBalancer,
    FeedbackBalancer,
    FeedbackSettings,
    PrimalDualBalancer,
    SystemModel,
    TrafficForecaster,
)

LIVE_BALANCERS = ("feedback", "primal-dual", "bisection", "static", "mpc", "adaptive")
PLANNING = ("mpc", "adaptive")
"""Those that need a system model."""
RATE = 0.3
"""Step of primal–dual, in usual prices; the middle one of those that `marca balance` tries."""


def live_balancer(
    name: Any, scenario: Scenario, *, model: str | Path | None = None, log: str | Path | None = None
) -> Balancer:
    """Build a balancer for live traffic.

    Args:
        name: one of :data:`LIVE_BALANCERS`, or a user's own: a dotted path, class or object.
        scenario: the system.
        model: folder of the system model; only the planning ones need it.
        log: system log of the past days, from which the planning ones learn the profile of the traffic, and what the
            time windows of a day change; ``None``: they begin without.

    Raises:
        InputError: an unknown name, or a model or log that is missing or of another system.
    """
    check_names("balancer", [name], LIVE_BALANCERS, BALANCER_METHODS)
    calibration = Calibration(Engine.load(scenario))
    if is_user_object(name):
        return UserBalancer.build(name, calibration)
    if name in PLANNING:
        return _planning(name, calibration, model, log)
    if name == "feedback":
        scale = tuple(calibration.usual_prices.tolist())
        return FeedbackBalancer(FeedbackSettings(scale=scale, release_margin=calibration.release_margin))
    if name == "primal-dual":
        return PrimalDualBalancer(RATE * calibration.usual_prices)
    return calibration.static() if name == "static" else calibration.bisection(calibration.actions)


def _planning(name: str, calibration: Calibration, model: str | Path | None, log: str | Path | None) -> Balancer:
    if model is None:
        raise InputError(
            f"--balancer {name} plans with a system model; give --model DIR, such as the folder 'model' that "
            "'marca balance --log LOG --fit-only' writes"
        )
    calibration.given_model = SystemModel.load(model)
    check_model(calibration.model, calibration)
    past = None if log is None else read_system_log(log, calibration.scenario.cluster_names)
    days = np.empty((0, MINUTES_PER_DAY)) if past is None else complete_days(past)
    balancer = calibration.mpc(TrafficForecaster.fit(days) if len(days) else TrafficForecaster())
    if past is not None:
        balancer.learn(past)
    return balancer if name == "mpc" else AdaptiveBalancer(balancer)


def complete_days(log: pd.DataFrame) -> np.ndarray:
    """Return the requests per second of the days of a system log that are complete, (D,1440)."""
    table = log.pivot_table(index="day", columns="minute", values="qps", aggfunc="last")
    return table.reindex(columns=range(MINUTES_PER_DAY)).dropna().to_numpy(dtype=np.float64)
