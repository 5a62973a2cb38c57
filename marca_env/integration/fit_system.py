"""Fit the models of a system to its logs, and write the scenario folder that environments load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from marca_env.cascade.outcomes import OutcomeTable
from marca_env.integration.feature_coding import FILE as CODING_FILE
from marca_env.integration.fit_report import FittedModels, HeldOut, make_report
from marca_env.integration.logged_system import LoggedSystem, complete_request_log
from marca_env.integration.model_errors import states_and_actions
from marca_env.integration.records import Records
from marca_env.logs.log_files import write_request_log
from marca_env.logs.schema import LATENCY_COLUMNS
from marca_env.models.cost_model import CostModel
from marca_env.models.latency_map import LatencyMap
from marca_env.models.population import Population
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import FILE as SCENARIO_FILE
from marca_env.utils.files import write_json
from marca_env.utils.progress import track_progress


def fit_system(
    system: LoggedSystem,
    out: Path,
    *,
    members: int = 5,
    seed: int = 0,
    device: str = "cpu",
    truth: OutcomeTable | None = None,
    records: Records | None = None,
) -> dict[str, Any]:
    """Fit on four fifths of the rows, evaluate on the rest, fit again on all rows, and write the folder.

    The folder holds ``scenario.yaml``, ``cost_model/``, ``revenue_model/``, ``population.parquet`` and
    ``report.json``, and ``latency.json`` if latency was measured; for a user's system also ``features.json`` (how raw
    features become codes) and ``requests.parquet`` (the request log in our schema).

    Args:
        system: the logs, from :func:`marca_env.integration.logged_system.read_logged_system` or
            :func:`marca_env.integration.logged_system.cascade_system`.
        out: the folder; made if it is missing.
        members: networks of the revenue ensemble.
        seed: seed of the fits and of the rows held out.
        device: torch device of the fits.
        truth: true outcomes of unseen requests of the live cascade, to compare with.
        records: recorded outcomes that environments of the folder serve in place of the models.

    Returns:
        The report, which is also written as ``report.json``.

    Raises:
        InputError: no request of the log earned revenue.
    """
    held_out = HeldOut.draw(system, seed)
    options: dict[str, Any] = {"members": members, "seed": seed, "device": device}
    trial = _fit_models(system, ~held_out.results, ~held_out.requests, **options)
    everything = HeldOut.nothing(system)
    final = _fit_models(system, ~everything.results, ~everything.requests, **options)
    report = make_report(system, held_out, trial, final, truth)
    _write_folder(system, final, out)
    if records is not None:
        records.save(out)
    write_json(out / "report.json", report)
    return report


def _fit_models(
    system: LoggedSystem, results: np.ndarray, requests: np.ndarray, *, members: int, **options: Any
) -> FittedModels:
    """Fit both models to the rows that two masks select."""
    with track_progress("fitting the cost model") as progress:
        log, cost_map = system.results[results], system.cost_map(results)
        cost_model = CostModel.fit(system.scenario, log, cost_map, progress=progress, **options)
    with track_progress("fitting the revenue model") as progress:
        log = system.requests[requests]
        revenue_model = RevenueModel.fit(system.scenario, log, members=members, progress=progress, **options)
    return FittedModels(cost_model, revenue_model)


def _write_folder(system: LoggedSystem, models: FittedModels, out: Path) -> None:
    scenario = system.scenario
    out.mkdir(parents=True, exist_ok=True)
    scenario.save(out / SCENARIO_FILE)
    models.cost_model.save(out / "cost_model")
    models.revenue_model.save(out / "revenue_model")
    Population.from_log(scenario, system.requests).save(out / "population.parquet", scenario)
    if system.buckets is not None and all(column.name in system.buckets for column in LATENCY_COLUMNS):
        LatencyMap.from_log(scenario, system.buckets, models.cost_model.cost_map).save(out)
    if system.coder is None:
        return
    system.coder.save(out / CODING_FILE)
    results = models.cost_model.results(*states_and_actions(scenario, system.requests))
    write_request_log(complete_request_log(system, results), out / "requests.parquet", scenario)
