"""How true the fitted environment is to the live cascade: costs, revenue per slice, and how policies rank.

Everything is tested on requests that no log holds and no model has seen, with the exact outcomes of every joint action.
The shipped models stand for the fitted environment. To show whether their kind of model pays off, models of this kind
and baselines (gradient-boosted trees and plain networks) are fitted to the same four fifths of the request log with
each seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.table import Table

from benchmarks.days.artefacts import outcomes_with_progress
from benchmarks.experiments.fidelity import report_tables
from benchmarks.experiments.fidelity.fitted_models import RESULT_MODELS, REVENUE_MODELS, result_rows, revenue_row
from benchmarks.experiments.fidelity.revenue_calibration import calibration_figure
from benchmarks.experiments.fidelity.shipped_models import judge_environment
from benchmarks.suite.api import Case, Row
from marca_env.cascade.outcomes import OutcomeTable
from marca_env.logs.log_files import read_cost_log, read_request_log
from marca_env.models.cost_map import CostMap
from marca_env.models.engine import Engine, shipped_folder
from marca_env.scenario.scenario import Scenario

ALONE = True
SEEDS = (0, 1, 2)
SHIPPED = "shipped models"
ENVIRONMENT, RESULTS, REVENUE = "environment", "action results", "revenue"
REQUESTS, QUICK_REQUESTS = 1000, 24
UNSEEN_SEED = 83
"""Seed of the test requests; no log, pool or other test set is drawn with it."""
QUICK_ROWS = 3000


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return a case for the shipped models, then one for each model that is fitted, with each seed."""
    budget = {"requests": QUICK_REQUESTS if quick else REQUESTS, "rows": QUICK_ROWS if quick else None}
    return [
        Case(SHIPPED, 0, task=ENVIRONMENT, budget=budget),
        *(
            Case(model, seed, task=task, budget=budget)
            for task, models in ((RESULTS, RESULT_MODELS), (REVENUE, REVENUE_MODELS))
            for seed in seeds
            for model in models
        ),
    ]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Test the shipped models, or fit a model and test it.

    Returns:
        Of the shipped models ``requests``, ``costs``, ``slices``, ``groups``, ``policies`` and ``ranking``; of a fitted
        model ``results`` or ``revenue``: rows.
    """
    unseen = _unseen_outcomes(case.scenario, case.budget["requests"])
    cost_log = shipped_folder(case.scenario) / "cost_log.csv"
    with _one_thread():
        if case.task == ENVIRONMENT:
            return judge_environment(Engine.load(case.scenario), unseen, read_cost_log(cost_log))
        log = _request_log(case.scenario, case.budget["rows"])
        if case.task == REVENUE:
            return {"revenue": [revenue_row(case.method, case.seed, log, unseen)]}
        cost_map = CostMap.from_log(unseen.scenario, read_cost_log(cost_log))
        return {"results": result_rows(case.method, case.seed, log, unseen, cost_map)}


@cache
def _unseen_outcomes(scenario: str, requests: int) -> OutcomeTable:
    return outcomes_with_progress(Scenario.load(scenario), requests, UNSEEN_SEED)


@cache
def _request_log(scenario: str, rows: int | None) -> pd.DataFrame:
    return read_request_log(shipped_folder(scenario) / "requests.parquet", Scenario.load(scenario))[:rows]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return costs, slices, policies and their agreement, then the fitted models."""
    for row in rows:
        if row.case.task == ENVIRONMENT:
            yield from report_tables.environment_tables(row.numbers)
    if results := [numbers for row in rows for numbers in row.numbers.get("results", ())]:
        yield report_tables.results_table(results)
    if revenue := [numbers for row in rows for numbers in row.numbers.get("revenue", ())]:
        yield report_tables.revenue_table(revenue)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw ``calibration.png``: the percentage error of the revenue of every group of requests."""
    for row in rows:
        if row.case.task == ENVIRONMENT:
            path = folder / "calibration.png"
            calibration_figure(row.numbers["groups"], path)
            return {"Calibration of predicted revenue by slice": path}
    return {}
