"""How true the fitted environment is to the live cascade: costs, revenue per slice, and how policies rank.

Everything is judged on requests that no log holds and no model has seen, with the exact outcomes of every joint action.
The shipped models stand for the fitted environment. Whether they earn their place is shown by rivals fitted to the same
four fifths of the request log with each seed: gradient-boosted trees and plain networks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from benchmarks.days.artefacts import outcomes_with_progress
from benchmarks.evaluation import model_errors
from benchmarks.evaluation.model_errors import cluster_map_errors
from benchmarks.experiments.fidelity import baselines, revenue_calibration
from benchmarks.experiments.fidelity.policy_ranking import agreement, policies, worth
from benchmarks.experiments.fidelity.report_tables import tables
from marca_env.logs.log_files import read_cost_log, read_request_log
from marca_env.models.cost_map import CostMap
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import Engine, shipped_folder
from marca_env.models.request_pool import RequestPool
from marca_env.models.revenue_model import RevenueModel
from marca_env.utils.progress import count_progress

if TYPE_CHECKING:
    import pandas as pd

    from marca_env.cascade.outcomes import OutcomeTable
    from marca_env.models.cost_map import CostMap
    from marca_env.models.engine import Engine

__all__ = ["judged", "run", "tables"]

SEEDS = (0, 1, 2)
REQUESTS, QUICK_REQUESTS = 1000, 24
UNSEEN_SEED = 83
"""Of the requests that judge; no log, pool or other judge is drawn with it."""
HELD_OUT, PAIRS = 0.2, 60_000
"""Share of the log that rivals do not see; (request, action) pairs of the unseen requests that judge their results."""
QUICK_ROWS = 3000

Fit = Callable[[int], Any]
"""Seed → fitted model."""


def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Judge the shipped models, then fit and judge the rivals; ``revenue_calibration.png`` goes to ``out``.

    Returns:
        ``requests``; ``costs``, ``slices``, ``groups``, ``policies``, ``ranking``, ``results`` and ``revenue``: rows.
    """

    engine, home = Engine.load("default"), shipped_folder("default")
    table = outcomes_with_progress(engine.scenario, QUICK_REQUESTS if quick else REQUESTS, UNSEEN_SEED)
    log = read_request_log(home / "requests.parquet", engine.scenario)[: QUICK_ROWS if quick else None]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return judged(engine, table, log, read_cost_log(home / "cost_log.csv"), out, seeds)
    finally:
        torch.set_num_threads(threads)


def judged(
    engine: Engine, table: OutcomeTable, log: pd.DataFrame, cost_log: pd.DataFrame, out: Path, seeds: Sequence[int]
) -> dict[str, Any]:
    """What :func:`run` returns, of any scenario.

    Args:
        engine: the fitted environment.
        table: the live cascade's outcomes of requests that are not in the logs.
        log: requests that the rivals are fitted to.
        cost_log: measured costs, repeats and whole requests included.
        out: folder of the figure.
        seeds: of the baselines.
    """

    scenario, cost_map = engine.scenario, CostMap.from_log(engine.scenario, cost_log)
    predicted, true = engine.table(table.states)[0], table.outcomes["revenue"]
    groups = revenue_calibration.slice_rows(scenario, table.states, predicted, true)
    revenue_calibration.calibration_figure(groups, out / "calibration.png")
    return {
        "requests": len(table),
        "costs": cost_rows(engine, table, cost_log),
        "slices": revenue_calibration.slice_summary(scenario, table.states, predicted, true),
        "groups": groups,
        **ranking_rows(engine, table, cost_map),
        "results": result_rows(log, table, cost_map, seeds),
        "revenue": revenue_rows(log, table, seeds),
    }


# -- parts ---------------------------------------------------------------------------------------------------------
def cost_rows(engine: Engine, table: OutcomeTable, cost_log: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each cluster, relative errors: ``spread`` of a measurement against the mean of its repeats; ``map``, of the
    cost map against a repeat that it has not seen; ``results``, of the cost of predicted instead of true candidates on
    the unseen requests; ``ratio``, (map + results) / spread; ``whole``, predicted over measured whole requests − 1."""

    scenario, maps = engine.scenario, cluster_map_errors(engine.scenario, cost_log)
    believed = engine.table(table.states)[1].astype(float)  # M J G
    true = engine.cost_model.cost_map.cost(scenario.joint_actions, table.results)
    off, mean = np.abs(believed - true).sum(axis=(0, 1)) / true.sum(axis=(0, 1)), believed.mean(axis=(0, 1))
    whole = cost_log[cost_log["component"] == "request"].groupby("cluster")["cost"].mean()
    return [
        {
            "cluster": name,
            "spread": maps[name]["spread"],
            "map": maps[name]["error"],
            "results": float(off[g]),
            "ratio": float((maps[name]["error"] + off[g]) / maps[name]["spread"]),
            "whole": float(mean[g] / whole[name] - 1.0),
        }
        for g, name in enumerate(scenario.cluster_names)
    ]


def ranking_rows(engine: Engine, table: OutcomeTable, cost_map: CostMap, seed: int = 0) -> dict[str, list[dict]]:
    """What each policy is worth in the fitted environment and in the live cascade, and how far both rank them alike."""

    scenario, states = engine.scenario, table.states
    chosen, prices = policies(engine, states, seed)
    values, costs = engine.table(states)
    true_costs = cost_map.cost(scenario.joint_actions, table.results).astype(np.float32)
    fitted = worth(chosen, RequestPool(scenario, states, {"revenue": values}, costs), prices)
    live = worth(chosen, RequestPool(scenario, states, {"revenue": table.outcomes["revenue"]}, true_costs), prices)
    rows = [
        {
            "policy": name,
            **{f"fitted_{k}": float(fitted[n][p].mean()) for n, k in enumerate(("revenue", "net"))},
            **{f"live_{k}": float(live[n][p].mean()) for n, k in enumerate(("revenue", "net"))},
        }
        for p, name in enumerate(chosen)
    ]
    of = {"revenue": (fitted[0], live[0]), "revenue − Σ λ C": (fitted[1], live[1])}
    return {"policies": rows, "ranking": [{"of": name, **agreement(*pair, seed=seed)} for name, pair in of.items()]}


def result_rows(
    log: pd.DataFrame, table: OutcomeTable, cost_map: CostMap, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Errors of every model of the action results, fitted with every seed to the same rows: a row per stage, on the
    rows ``held out`` of the log and on ``unseen`` requests."""

    train, test = split(log)
    judges = {"held out": test, "unseen": unseen_pairs(table)}
    fits: dict[str, Fit] = {
        "MMoE-DCN": lambda seed: CostModel.fit(table.scenario, train, cost_map, seed=seed),
        "boosted trees": lambda seed: baselines.tree_results(table.scenario, train, seed),
        "plain network": lambda seed: baselines.net_results(table.scenario, train, seed),
    }
    rows = []
    for common, model in _fitted("action results", fits, seeds):
        for name, judge in judges.items():
            errors = model_errors.result_errors(model, judge)
            rows += [{**common, "rows": name, "stage": stage, **found} for stage, found in errors.items()]
    return rows


def revenue_rows(log: pd.DataFrame, table: OutcomeTable, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Errors of every model of the revenue, fitted with every seed to the same rows: against the truth about the unseen
    requests, and, named ``log_…``, against the sampled revenue of the rows held out."""

    train, test = split(log)
    fits: dict[str, Fit] = {
        "two-part ensemble": lambda seed: RevenueModel.fit(table.scenario, train, seed=seed),
        "boosted trees": lambda seed: baselines.tree_revenue(table.scenario, train, seed),
        "plain network": lambda seed: baselines.net_revenue(table.scenario, train, seed),
    }
    return [
        common
        | model_errors.truth_errors(model, table)
        | {f"log_{name}": error for name, error in model_errors.revenue_errors(model, test).items()}
        for common, model in _fitted("revenue", fits, seeds)
    ]


def split(log: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows that rivals are fitted to, and rows held out."""
    held = np.random.default_rng(0).random(len(log)) < HELD_OUT
    return log[~held], log[held]


def _fitted(what: str, fits: dict[str, Fit], seeds: Sequence[int]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Every model with every seed, and what its rows have in common: its size and the CPU seconds of its fit."""

    with count_progress(f"Fitting models of the {what}", len(seeds) * len(fits)) as advance:
        for seed in seeds:
            for name, fit in fits.items():
                began = time.process_time()
                model = fit(seed)
                seconds = time.process_time() - began
                yield {"model": name, "seed": seed, "size": _size(model), "fit_cpu_s": seconds}, model
                advance()


def unseen_pairs(table: OutcomeTable, pairs: int = PAIRS) -> pd.DataFrame:
    """Random (request, joint action) pairs of a table as a log of features, decisions and true candidates."""

    scenario, rng = table.scenario, np.random.default_rng(0)
    request = rng.integers(len(table), size=pairs)
    action = rng.integers(scenario.n_joint_actions, size=pairs)
    codes = np.hstack([table.states[request], scenario.joint_actions[action]])
    frame = pd.DataFrame(codes, columns=[*scenario.feature_names, *scenario.decision_names])
    frame[[f"result_{s}" for s in scenario.stage_names]] = table.results[request, action]
    return frame


def _size(model: Any) -> int:
    """Weights of a network, nodes of trees."""
    return model.size if hasattr(model, "size") else sum(p.numel() for p in model._net.parameters())
