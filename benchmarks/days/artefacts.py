"""Artefacts that the commands and experiments run on; progress is shown where loading takes time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from marca_env.cascade.outcomes import OutcomeTable, outcome_table
from marca_env.logs.log_files import read_cost_log
from marca_env.models.cost_map import CostMap
from marca_env.models.engine import Engine, artefact_folder, shipped_folder
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.utils.model_files import is_analytic_model
from marca_env.utils.progress import track_progress


def outcomes_with_progress(scenario: Scenario, n: int, seed: int) -> OutcomeTable:
    """Return :func:`marca_env.cascade.outcomes.outcome_table`, from its cache or computed with a progress bar."""
    with track_progress(f"Evaluating all joint actions of {n} requests") as report:
        return outcome_table(scenario, n, seed, progress=report)


def true_pool(scenario: Scenario, requests: int, seed: int, costs: str | Path | None = None) -> RequestPool:
    """Draw requests with their true outcomes and costs.

    They are the live cascade's expected outcomes and the measured cost of what it processed. In a generated scenario
    the analytic models give both.

    Args:
        scenario: the scenario.
        requests: number of requests.
        seed: seed of the draw.
        costs: cost log of the measurements; ``None``: the one shipped for the scenario.
    """
    if is_analytic_model(artefact_folder(scenario) / "revenue_model"):
        return Engine.load(scenario).pool(requests, seed)
    cost_map = load_cost_map(scenario, costs)
    table = outcomes_with_progress(scenario, requests, seed)
    site = scenario.site_of(table.states[:, None])  # (M,1)
    measured = cost_map.cost(scenario.joint_actions, table.results, site).astype(np.float32)
    return RequestPool(scenario, table.states, table.outcomes, measured)


def load_cost_map(scenario: Scenario, path: str | Path | None = None) -> CostMap:
    """Fit the map of measured costs to a cost log; by default to the one shipped for the scenario."""
    log = Path(path) if path else shipped_folder(scenario.name) / "cost_log.csv"
    return CostMap.from_log(scenario, read_cost_log(log))
