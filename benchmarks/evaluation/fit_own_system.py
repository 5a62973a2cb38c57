"""From somebody's three logs to a scenario folder that environments run, with a report of how far it can be trusted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.evaluation import model_errors
from marca_env.integration.feature_coding import FILE
from marca_env.integration.logged_system import request_log
from marca_env.logs.log_files import write_request_log
from marca_env.models.cost_model import CostModel
from marca_env.models.population import Population
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario import scenario as scenarios
from marca_env.utils.files import write_json
from marca_env.utils.progress import track_progress

if TYPE_CHECKING:
    import pandas as pd

    from marca_env.integration.logged_system import LoggedSystem
    from marca_env.models.cost_model import CostModel
    from marca_env.models.revenue_model import RevenueModel

HELD_OUT = 0.2
LEAST_HELD_OUT = 50
"""Rows that a judgement needs; with fewer the report says so and gives none."""


def fit_own_system(
    system: LoggedSystem, out: Path, *, members: int = 5, seed: int = 0, device: str = "cpu"
) -> dict[str, Any]:
    """Fit the models of a system and write its folder; returns the report.

    The folder holds ``scenario.yaml``, ``features.json`` (how raw features become codes), ``cost_model/``,
    ``revenue_model/``, ``population.parquet``, ``requests.parquet`` (the log in our schema) and ``report.json``.

    Args:
        system: what :func:`marca_env.integration.logged_system.read_logged_system` read.
        out: the folder; made if it is not there.
        members: networks of the revenue ensemble.
        seed: of the fits and of what is held out.
        device: torch device of the fits.

    Raises:
        InputError: nothing was earned in the whole log.
    """

    rng = np.random.default_rng(seed)
    held = [_held_out(rng, len(log)) for log in (system.results, system.requests)]
    options: dict[str, Any] = {"members": members, "seed": seed, "device": device}
    judged = _judge(system, *_models(system, ~held[0], ~held[1], **options), *held)
    cost_model, revenue_model = _models(system, np.full_like(held[0], True), np.full_like(held[1], True), **options)
    report = {**_described(system), **judged, **_load_check(system, cost_model)}
    scenario = system.scenario
    out.mkdir(parents=True, exist_ok=True)
    scenario.save(out / scenarios.FILE)
    system.coder.save(out / FILE)
    cost_model.save(out / "cost_model")
    revenue_model.save(out / "revenue_model")
    Population.from_log(scenario, system.requests).save(out / "population.parquet", scenario)
    states, actions = _columns(system, system.requests)
    write_request_log(request_log(system, cost_model.results(states, actions)), out / "requests.parquet", scenario)
    report = _finite(report)
    write_json(out / "report.json", report)
    return report


def _held_out(rng: np.random.Generator, n: int) -> np.ndarray:
    """A fifth of the rows, or none where that would be too few to judge by."""
    held = rng.random(n) < HELD_OUT
    return held if held.sum() >= LEAST_HELD_OUT else np.zeros(n, dtype=bool)


def _models(
    system: LoggedSystem, results: np.ndarray, requests: np.ndarray, *, members: int, **options: Any
) -> tuple[CostModel, RevenueModel]:
    """Both models, fitted to some rows."""

    with track_progress("fitting the cost model") as progress:
        log, costs = system.results[results], system.cost_map(results)
        cost_model = CostModel.fit(system.scenario, log, costs, progress=progress, **options)
    with track_progress("fitting the revenue model") as progress:
        log = system.requests[requests]
        revenue_model = RevenueModel.fit(system.scenario, log, members=members, progress=progress, **options)
    return cost_model, revenue_model


def _judge(
    system: LoggedSystem, cost_model: CostModel, revenue_model: RevenueModel, results: np.ndarray, requests: np.ndarray
) -> dict[str, Any]:
    """Errors on the rows that were held out."""
    judged: dict[str, Any] = {"held_out": {"requests": int(requests.sum()), "costs": int(results.sum())}}
    if results.any():
        judged["results"] = model_errors.result_errors(cost_model, system.results[results])
    if results.any() and system.costs is not None:
        predicted, true = cost_model.predict(*_columns(system, system.results[results])), system.costs[results]
        judged["cost"] = {
            name: {
                "error": float(np.abs(predicted - true)[:, g].sum() / max(true[:, g].sum(), 1e-12)),
                "calibration": float(predicted[:, g].sum() / max(true[:, g].sum(), 1e-12)),
            }
            for g, name in enumerate(system.scenario.cluster_names)
        }
    if requests.any():
        judged["revenue"] = model_errors.revenue_errors(revenue_model, system.requests[requests])
    return judged


def _load_check(system: LoggedSystem, cost_model: CostModel) -> dict[str, Any]:
    """Mean predicted cost of the logged requests over load per request in the system log, for each cluster."""
    if system.system is None:
        return {}
    predicted = cost_model.predict(*_columns(system, system.requests)).mean(axis=0)
    measured = system.system.cost
    return {
        "load": {
            name: {
                "predicted_per_request": float(predicted[g]),
                "ratio_to_system_log": float(predicted[g] / measured[g]),
            }
            for g, name in enumerate(system.scenario.cluster_names)
            if measured[g] > 0  # not nan, either
        }
    }


def _described(system: LoggedSystem) -> dict[str, Any]:
    """What was read, and what the scenario took from it."""
    scenario, log = system.scenario, system.requests
    taken = np.unique(log[list(scenario.decision_names)].to_numpy(), axis=0)
    return {
        "scenario": scenario.name,
        "rows": {
            "requests": len(log),
            "costs": len(system.results if system.buckets is None else system.buckets),
            "system": 0 if system.system is None else len(system.system.qps),
        },
        "cost_source": system.source,
        "peak_qps": scenario.peak_qps,
        "clusters": {c.name: {"budget": c.budget, "cores": c.cores} for c in scenario.clusters},
        "features": {
            c.name: {"coding": c.coding, "size": c.size, "codes_seen": int(log[c.name].nunique())}
            for c in system.coder.codings
        },
        "joint_actions": {"all": scenario.n_joint_actions, "seen": len(taken)},
        "options_never_seen": {
            d.name: [list(d.options[k]) if isinstance(d.options[k], tuple) else d.options[k] for k in unseen]
            for n, d in enumerate(scenario.decisions)
            if (unseen := sorted(set(range(len(d.options))) - set(taken[:, n].tolist())))
        },
    }


def _columns(system: LoggedSystem, log: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    names = system.scenario.feature_names, system.scenario.decision_names
    states, actions = (log[list(columns)].to_numpy(np.int64) for columns in names)
    return states, actions


def _finite(value: Any) -> Any:
    """JSON has no nan."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_report(report: dict[str, Any]) -> None:
    """The report in a few lines."""
    rows, actions = report["rows"], report["joint_actions"]
    print(
        f"scenario {report['scenario']}: {rows['requests']} requests, {rows['costs']} rows of costs "
        f"(source: {report['cost_source']}), {rows['system']} periods; peak {report['peak_qps']:g} requests/s"
    )
    for name, cluster in report["clusters"].items():
        check = report.get("load", {}).get(name)
        ratio = "" if check is None else f", predicted load {check['ratio_to_system_log']:.2f} of the system log's"
        print(f"cluster {name}: budget {cluster['budget']:.4g} of {cluster['cores']:.4g} cores{ratio}")
    print(f"joint actions: {actions['seen']} of {actions['all']} seen in the log")
    for name, options in report["options_never_seen"].items():
        print(
            f"warning: decision {name}: no request took {', '.join(map(str, options))}; what is said of it is a guess"
        )
    if not report["held_out"]["requests"]:
        print(f"too few requests to judge by: a fifth of them is less than {LEAST_HELD_OUT}")
    for name, error in report.get("results", {}).items():
        print(f"candidates of {name}: mean error {error['mae']:.3g} ({_share(error['relative'])})")
    for name, error in report.get("cost", {}).items():
        print(f"cost on {name}: error {_share(error['error'])}, calibration {error['calibration']:.3f}")
    if "revenue" in report:
        revenue = report["revenue"]
        print(
            f"revenue: Spearman {revenue['spearman']:.3f} against logged revenue, "
            f"calibration {revenue['calibration']:.3f}, error by decile {_share(revenue['decile_error'])}"
        )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
