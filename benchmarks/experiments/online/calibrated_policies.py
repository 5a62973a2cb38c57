"""Policies that are trained and calibrated with a case's seed.

What is trained or tuned is kept in the experiment's folder, keyed by everything that it depends on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.days.calibration import MARGINS, Calibration, ValueFunction, gain_grid
from benchmarks.days.policies import build_policy, load_values
from benchmarks.suite.api import Case
from benchmarks.suite.cached_folder import cached_folder
from marca_env.models.engine import Engine
from marca_env.traffic.control import Balancer
from marca_env.traffic.policies import Policy, PricedPolicy
from marca_env.traffic.workload import Traffic
from marca_env.utils.files import write_json
from mpc import FeedbackBalancer, FeedbackSettings, SystemModel

LEARNERS = {"rl-mpca": "JointDRQN", "marca-feedback": "AWRQMixer", "marca-mpc": "AWRQMixer"}
"""Policy → the algorithm that learns its values."""


def calibrated_policy(case: Case, folder: Path, states: np.ndarray, traffic: Traffic) -> Policy:
    """Calibrate a policy on generated days with the case's seed.

    Args:
        case: names policy, scenario, seed and effort.
        folder: where trained and tuned parts are kept.
        states: (M, F), the requests that the policy will serve.
        traffic: of the day; the MPC's forecast uses its past.
    """
    effort, engine = case.config, Engine.load(case.scenario)
    calibration = Calibration(
        engine, case.seed, requests=effort["sample"], days=effort["days"], tuning=effort["tuning"]
    )
    if case.method not in LEARNERS:
        return build_policy(case.method, calibration, states)
    values, about = _learned_values(case, folder)
    own = calibration.with_values(values)
    if case.method == "marca-mpc":
        own.given_model, margin = _system(own, about, folder)
        balancer: Balancer = own.mpc(own.forecaster(traffic.history_days()), margin=margin)
    else:
        balancer = _feedback(own, about, folder)
    return PricedPolicy(case.method, values(states), engine.table(states)[1], balancer)


def _learned_values(case: Case, folder: Path) -> tuple[ValueFunction, dict[str, Any]]:
    """Return the values of the policy's learner, trained with the case's seed, and all that they depend on."""
    algo, iterations = LEARNERS[case.method], int(case.budget["iterations"])
    training: dict[str, Any] = {
        "algo": algo,
        "iterations": iterations,
        "num_envs": int(case.budget["episodes"]),
        "seed": case.seed,
    }

    def make(home: Path) -> None:
        from agents.rllib import online_train

        online_train(home / "run", env_config={"scenario": case.scenario}, **training)

    about = {"scenario": case.scenario, **training}
    home = cached_folder(folder, algo, about, make)
    (policy,) = (home / "run").glob("checkpoint_*/policy")
    return load_values(str(policy)), {**about, **case.config}


def _system(calibration: Calibration, about: Mapping[str, Any], folder: Path) -> tuple[SystemModel, float]:
    """Return the system model of the MPC, and its margin."""

    def make(home: Path) -> None:
        calibration.model.save(home / "model")
        write_json(home / "margin.json", calibration.margin)

    home = cached_folder(folder, "system", {**about, "margins": list(MARGINS)}, make)
    return SystemModel.load(home / "model"), json.loads((home / "margin.json").read_text(encoding="utf-8"))


def _feedback(calibration: Calibration, about: Mapping[str, Any], folder: Path) -> FeedbackBalancer:
    """Return the feedback balancer with its tuned gains and margin."""

    def make(home: Path) -> None:
        write_json(home / "gains.json", asdict(calibration.feedback))

    home = cached_folder(folder, "feedback", {**about, "gains": gain_grid()}, make)
    tuned = json.loads((home / "gains.json").read_text(encoding="utf-8"))
    return FeedbackBalancer(FeedbackSettings(**{**tuned, "scale": tuple(tuned["scale"])}))
