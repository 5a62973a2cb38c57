"""Models of the action results and of the revenue, fitted to the same rows and tested on the same requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.experiments.fidelity import baselines
from marca_env.cascade.outcomes import OutcomeTable
from marca_env.integration import model_errors
from marca_env.models.cost_map import CostMap
from marca_env.models.cost_model import CostModel
from marca_env.models.revenue_model import RevenueModel

RESULT_MODELS = ("MMoE-DCN", "boosted trees", "plain network")
REVENUE_MODELS = ("two-part ensemble", "boosted trees", "plain network")
HELD_OUT = 0.2
"""Share of the log that no model is fitted to."""
PAIRS = 60_000
"""Number of (request, joint action) pairs of the unseen requests on which models of the action results are tested."""


def result_rows(
    name: str, seed: int, log: pd.DataFrame, unseen: OutcomeTable, cost_map: CostMap
) -> list[dict[str, Any]]:
    """Fit a model of the action results and measure its errors.

    Args:
        name: one of :data:`RESULT_MODELS`.
        seed: of the fit.
        log: request log.
        unseen: outcomes of requests that are not in the log.
        cost_map: turns results into costs.

    Returns:
        A row per stage, on the rows ``held out`` of the log and on ``unseen`` requests.
    """
    train, test = split(log)
    fits: dict[str, Callable[[], Any]] = {
        "MMoE-DCN": lambda: CostModel.fit(unseen.scenario, train, cost_map, seed=seed),
        "boosted trees": lambda: baselines.tree_results(unseen.scenario, train, seed),
        "plain network": lambda: baselines.net_results(unseen.scenario, train, seed),
    }
    about, model = _fit(name, seed, fits)
    judges = {"held out": test, "unseen": unseen_pairs(unseen)}
    return [
        {**about, "rows": rows, "stage": stage, **errors}
        for rows, judge in judges.items()
        for stage, errors in model_errors.result_errors(model, judge).items()
    ]


def revenue_row(name: str, seed: int, log: pd.DataFrame, unseen: OutcomeTable) -> dict[str, Any]:
    """Fit a model of the revenue and measure its errors.

    Args:
        name: one of :data:`REVENUE_MODELS`.
        seed: of the fit.
        log: request log.
        unseen: outcomes of requests that are not in the log.

    Returns:
        Errors against the truth about the unseen requests, and, named ``log_…``, against the sampled revenue of the
        rows held out.
    """
    train, test = split(log)
    fits: dict[str, Callable[[], Any]] = {
        "two-part ensemble": lambda: RevenueModel.fit(unseen.scenario, train, seed=seed),
        "boosted trees": lambda: baselines.tree_revenue(unseen.scenario, train, seed),
        "plain network": lambda: baselines.net_revenue(unseen.scenario, train, seed),
    }
    about, model = _fit(name, seed, fits)
    log_errors = {f"log_{name}": error for name, error in model_errors.revenue_errors(model, test).items()}
    return {**about, **model_errors.truth_errors(model, unseen), **log_errors}


def split(log: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows that models are fitted to, and the rows held out."""
    held = np.random.default_rng(0).random(len(log)) < HELD_OUT
    return log[~held], log[held]


def unseen_pairs(unseen: OutcomeTable, pairs: int = PAIRS) -> pd.DataFrame:
    """Draw (request, joint action) pairs of a table, as a log of features, decisions and true candidates."""
    scenario, rng = unseen.scenario, np.random.default_rng(0)
    request = rng.integers(len(unseen), size=pairs)
    action = rng.integers(scenario.n_joint_actions, size=pairs)
    codes = np.hstack([unseen.states[request], scenario.joint_actions[action]])
    frame = pd.DataFrame(codes, columns=[*scenario.feature_names, *scenario.decision_names])
    frame[[f"result_{s}" for s in scenario.stage_names]] = unseen.results[request, action]
    return frame


def _fit(name: str, seed: int, fits: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Any], Any]:
    """Return the model, and its name, seed, size and the CPU seconds of its fit."""
    began = time.process_time()
    model = fits[name]()
    seconds = time.process_time() - began
    return {"model": name, "seed": seed, "size": _size(model), "fit_cpu_s": seconds}, model


def _size(model: Any) -> int:
    """Return the number of weights of a network, or of nodes of trees."""
    return model.size if hasattr(model, "size") else sum(p.numel() for p in model._net.parameters())
