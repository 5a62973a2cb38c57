"""Artefacts that the commands and experiments run on; progress is shown where loading takes time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from marca_env.cascade.cascade import STAGES
from marca_env.cascade.outcomes import OutcomeTable, outcome_table
from marca_env.integration.feature_coding import FILE as CODING_FILE
from marca_env.logs.log_files import read_cost_log
from marca_env.models.cost_map import CostMap
from marca_env.models.engine import Engine, artefact_folder, load_latency_map
from marca_env.models.recorded_outcomes import FILE as OUTCOMES_FILE
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.model_files import is_analytic_model
from marca_env.utils.progress import track_progress
from marca_env.utils.validation import as_seed, as_whole_number

MOST_REQUESTS = 1_000_000
"""Most test requests: each has the outcome of every joint action."""


def outcomes_with_progress(scenario: Scenario, n: int, seed: int) -> OutcomeTable:
    """Return :func:`marca_env.cascade.outcomes.outcome_table`, from its cache or computed with a progress bar."""
    with track_progress(f"Evaluating all joint actions of {n} requests") as report:
        return outcome_table(scenario, n, seed, progress=report)


def true_pool(scenario: Scenario, requests: int, seed: int, costs: str | Path | None = None) -> RequestPool:
    """Draw requests with their true outcomes and costs.

    They are the live cascade's expected outcomes and the measured cost (and, with a latency limit, service time) of
    what it processed. In a generated scenario the analytic models give both; where outcomes were recorded, the records
    do, for the held-out requests if there are any. For another system without a live cascade the fitted models do
    (:func:`truth_note`).

    Args:
        scenario: the scenario.
        requests: number of requests; held-out requests are all taken, each once.
        seed: seed of the draw.
        costs: cost log of the measurements; ``None``: the one beside the scenario's models.

    Raises:
        InputError: no cost log, or one for a scenario without a live cascade.
    """
    requests = as_whole_number("--requests", requests, 1, MOST_REQUESTS)
    as_seed(seed, "--seed")
    is_analytic = is_analytic_model(artefact_folder(scenario) / "revenue_model")
    if is_analytic or not has_live_cascade(scenario):
        if costs is not None:
            raise InputError(
                f"cost log {costs}: scenario {scenario.name!r} has no live cascade whose work it could price; "
                "leave it out, the costs come from the scenario's models"
            )
        engine = Engine.load(scenario)
        return engine.pool(requests, seed) if engine.heldout is None else engine.heldout_pool()
    cost_map = load_cost_map(scenario, costs)
    table = outcomes_with_progress(scenario, requests, seed)
    site = scenario.site_of(table.states[:, None])  # (M,1)
    measured = cost_map.cost(scenario.joint_actions, table.results, site).astype(np.float32)
    if scenario.latency is None:
        return RequestPool(scenario, table.states, table.outcomes, measured)
    service = load_latency_map(scenario, cost_map).of_joint_actions(table.results)
    return RequestPool.with_limit(scenario, table.states, table.outcomes, measured, service)


def has_live_cascade(scenario: Scenario) -> bool:
    """Return whether the package's live cascade can serve the scenario.

    It can serve neither a user's own system nor one whose outcomes were recorded.
    """
    is_own_system = scenario.home is not None and (scenario.home / CODING_FILE).is_file()
    return scenario.stage_names == STAGES and not is_own_system and not has_records(scenario)


def has_records(scenario: Scenario) -> bool:
    """Return whether the outcomes of every joint action were recorded."""
    return (artefact_folder(scenario) / OUTCOMES_FILE).is_file()


def truth_note(scenario: Scenario) -> str | None:
    """Return a sentence for the reader where the fitted models stand in for a live cascade, else ``None``."""
    is_analytic = is_analytic_model(artefact_folder(scenario) / "revenue_model")
    if has_live_cascade(scenario) or has_records(scenario) or is_analytic:
        return None
    return f"Scenario {scenario.name!r} has no live cascade: its fitted models serve as the truth."


def load_cost_map(scenario: Scenario, path: str | Path | None = None) -> CostMap:
    """Fit the map of measured costs to a cost log; by default to the one beside the scenario's models.

    Raises:
        InputError: the log does not exist.
    """
    if path is not None:
        return CostMap.from_log(scenario, read_cost_log(Path(path)))
    log = artefact_folder(scenario) / "cost_log.csv"
    if not log.is_file():
        raise InputError(
            f"scenario {scenario.name!r}: no cost log {log}; measure one with `marca testbench --scenario "
            f"{scenario.load_name} --out {log}`"
        )
    return CostMap.from_log(scenario, read_cost_log(log))
