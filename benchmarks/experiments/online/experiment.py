"""Days of traffic under five allocation policies: uplift over static, significance, shares of the clairvoyant bound.

With a seed all policies meet the same arrivals of the same requests. A seed also trains the learners and commissions
the balancers anew (what it yields is kept in the experiment's folder), so that intervals over seeds cover training.
Learners, gains and system models come from generated days; only the MPC's forecast sees the past of a trace. The public
traces lie where :func:`benchmarks.suite.public_data.trace_folder` looks; without them the other days remain.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.days.artefacts import true_pool
from benchmarks.days.balancer_evaluation import score
from benchmarks.days.calibration import MARGINS, Calibration, ValueFunction, gain_grid
from benchmarks.days.compare_policies import embedded_trace
from benchmarks.days.policies import POLICIES, build_policy, load_values
from benchmarks.experiments.online import report_tables
from benchmarks.suite.api import Case, Row
from benchmarks.suite.cached_folder import cached_folder
from benchmarks.suite.public_data import available_traces, trace_folder
from marca_env.logs.schema import OUTCOMES
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.control import Balancer
from marca_env.traffic.day_simulator import clairvoyant_bound, replay
from marca_env.traffic.days import generated
from marca_env.traffic.policies import Policy, PricedPolicy
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.workload import Traffic, read_trace
from marca_env.utils.files import write_json
from mpc import FeedbackBalancer, FeedbackSettings, SystemModel

SEEDS = (0, 1, 2, 3, 4)
BOUND = "clairvoyant bound"
LEARNERS = {"rl-mpca": "JointDRQN", "marca-feedback": "AWRQMixer", "marca-mpc": "AWRQMixer"}
EMBEDDED, GENERATED = "embedded day", ("smooth", "flash-sale")
TRACE_DAYS = {
    "nyc_taxi 2014-08-02": ("nyc_taxi.csv", "2014-08-02"),
    "nyc_taxi 2014-11-12": ("nyc_taxi.csv", "2014-11-12"),
    "Twitter AMZN 2015-03-18": ("Twitter_volume_AMZN.csv", "2015-03-18"),
    "Twitter GOOG 2015-04-08": ("Twitter_volume_GOOG.csv", "2015-04-08"),
}
"""A Saturday and Wednesdays, chosen beforehand; the balancing experiment replays the second week of each trace."""
JUDGE_SEED = 30_000
"""Of the requests that judge with seed 0; no log and no model has seen them."""
FULL: dict[str, Any] = {"minutes": 1440, "requests": 600, "iterations": 45, "episodes": 2000}
QUICK: dict[str, Any] = {"minutes": 15, "requests": 40, "iterations": 2, "episodes": 100}
COMMISSIONING = {"sample": 300, "days": 4, "tuning": 1440}


def cases(*, quick: bool, seeds: Sequence[int]) -> list[Case]:
    """Every policy, and the bound, on every day that there is."""
    methods = (BOUND, *(p for p in POLICIES if not quick or p in ("static", "dcaf", "marca-mpc")))
    budget, effort = (QUICK, {"sample": 30, "days": 1, "tuning": 20}) if quick else (FULL, COMMISSIONING)
    files = {day: file for day, (file, _) in TRACE_DAYS.items()}
    days = ("smooth",) if quick else (EMBEDDED, *available_traces(files), *GENERATED)
    return [
        Case(method, seed, task=day, budget=budget, config=effort)
        for seed in seeds
        for day in days
        for method in methods
    ]


# -- a case ---------------------------------------------------------------------------------------------------------
def measure(case: Case, folder: Path) -> dict[str, Any]:
    """A day's sums (revenue in currency), CTR, ROI, and μ and ν by cluster and together; of the bound, the revenue."""
    scenario = Scenario.load(case.scenario)
    traffic = _traffic(case)
    pool = true_pool(scenario, int(case.budget["requests"]), JUDGE_SEED + case.seed)
    counts = draw_arrivals(pool, traffic, case.seed)
    if case.method == BOUND:
        return {"revenue": clairvoyant_bound(pool, counts)}
    minutes = replay(_policy(case, folder, pool.states, traffic), pool, traffic, counts)
    found = score(minutes, scenario.cluster_names, np.ones((len(minutes), len(scenario.clusters))))
    sums = {name: float(minutes[name].sum()) for name in OUTCOMES}
    return {
        **sums,
        "ctr": sums["clicks"] / sums["impressions"],
        "roi": sums["gmv"] / sums["revenue"],
        **{name: found[name] for name in ("mu", "nu", "degraded", "lost")},
    }


def _traffic(case: Case) -> Traffic:
    scenario, minutes = Scenario.load(case.scenario), int(case.budget["minutes"])
    if case.task == EMBEDDED:
        return read_trace(embedded_trace(), scenario, minutes)
    if case.task in TRACE_DAYS:
        file, date = TRACE_DAYS[case.task]
        return read_trace(trace_folder() / file, scenario, minutes, date)
    return generated(case.task, scenario, case.seed, minutes).traffic


def _policy(case: Case, folder: Path, states: np.ndarray, traffic: Traffic) -> Policy:
    """Calibrate a policy on generated days with the case's seed, for requests in ``states`` (M, F)."""
    effort, engine = case.config, Engine.load(case.scenario)
    calibration = Calibration(
        engine, case.seed, requests=effort["sample"], days=effort["days"], tuning=effort["tuning"]
    )
    if case.method not in LEARNERS:
        return build_policy(case.method, calibration, states)
    values, about = _learnt(case, folder)
    own = calibration.with_values(values)
    if case.method == "marca-mpc":
        own.given_model, margin = _system(own, about, folder)
        balancer: Balancer = own.mpc(own.forecaster(traffic.history_days()), margin=margin)
    else:
        balancer = _feedback(own, about, folder)
    return PricedPolicy(case.method, values(states), engine.table(states)[1], balancer)


def _learnt(case: Case, folder: Path) -> tuple[ValueFunction, dict[str, Any]]:
    """Values of the policy's learner, trained with the case's seed, and all that they depend on."""
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
    """Return the system model of MPC, and its margin."""

    def make(home: Path) -> None:
        calibration.model.save(home / "model")
        write_json(home / "margin.json", calibration.margin)

    home = cached_folder(folder, "system", {**about, "margins": list(MARGINS)}, make)
    return SystemModel.load(home / "model"), json.loads((home / "margin.json").read_text(encoding="utf-8"))


def _feedback(calibration: Calibration, about: Mapping[str, Any], folder: Path) -> FeedbackBalancer:
    """Return feedback with its gains and margin."""

    def make(home: Path) -> None:
        write_json(home / "gains.json", asdict(calibration.feedback))

    home = cached_folder(folder, "feedback", {**about, "gains": gain_grid()}, make)
    tuned = json.loads((home / "gains.json").read_text(encoding="utf-8"))
    return FeedbackBalancer(FeedbackSettings(**{**tuned, "scale": tuple(tuned["scale"])}))


# -- tables ---------------------------------------------------------------------------------------------------------
def tables(rows: Sequence[Row]) -> Iterable[Any]:
    """Uplifts over static beside the published ones, their significance, every day, and how the budgets are used."""
    return report_tables.tables(rows, BOUND)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Revenue over static of every policy on every day."""
    return report_tables.figures(rows, folder, BOUND)
