"""The shipped environment tested on unseen requests: costs, revenue per slice, and how it ranks policies.

M requests, J joint actions, G clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from benchmarks.experiments.fidelity import revenue_calibration
from benchmarks.experiments.fidelity.policy_ranking import agreement, policies, revenue_and_net
from marca_env.cascade.outcomes import OutcomeTable
from marca_env.integration.model_errors import cluster_map_errors
from marca_env.models.cost_map import CostMap
from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool


def judge_environment(engine: Engine, unseen: OutcomeTable, cost_log: pd.DataFrame) -> dict[str, Any]:
    """Test a fitted environment.

    Args:
        engine: the fitted environment.
        unseen: the live cascade's outcomes of requests that are not in the logs.
        cost_log: measured costs, with repeats and whole requests.

    Returns:
        ``requests`` (M); ``costs``, ``slices``, ``groups``, ``policies`` and ``ranking``: rows.
    """
    scenario, cost_map = engine.scenario, CostMap.from_log(engine.scenario, cost_log)
    predicted, true = engine.table(unseen.states)[0], unseen.outcomes["revenue"]
    return {
        "requests": len(unseen),
        "costs": cost_rows(engine, unseen, cost_log),
        "slices": revenue_calibration.slice_summary(scenario, unseen.states, predicted, true),
        "groups": revenue_calibration.slice_rows(scenario, unseen.states, predicted, true),
        **ranking_rows(engine, unseen, cost_map),
    }


def cost_rows(engine: Engine, unseen: OutcomeTable, cost_log: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the relative errors of the cost of each cluster.

    Returns:
        Rows of ``spread`` (a measurement against the mean of its repeats), ``map`` (the cost map against a repeat that
        it has not seen), ``results`` (cost of predicted instead of true candidates on the unseen requests), ``ratio``
        ((map + results) / spread) and ``whole`` (predicted over measured whole requests − 1).
    """
    scenario, maps = engine.scenario, cluster_map_errors(engine.scenario, cost_log)
    predicted = engine.table(unseen.states)[1].astype(float)  # (M, J, G)
    true = engine.cost_model.cost_map.cost(scenario.joint_actions, unseen.results)
    error = np.abs(predicted - true).sum(axis=(0, 1)) / true.sum(axis=(0, 1))
    mean = predicted.mean(axis=(0, 1))
    whole = cost_log[cost_log["component"] == "request"].groupby("cluster")["cost"].mean()
    return [
        {
            "cluster": name,
            "spread": maps[name]["spread"],
            "map": maps[name]["error"],
            "results": float(error[g]),
            "ratio": float((maps[name]["error"] + error[g]) / maps[name]["spread"]),
            "whole": float(mean[g] / whole[name] - 1.0),
        }
        for g, name in enumerate(scenario.cluster_names)
    ]


def ranking_rows(engine: Engine, unseen: OutcomeTable, cost_map: CostMap, seed: int = 0) -> dict[str, list[dict]]:
    """Compare the net revenue of each policy in the fitted environment and in the live cascade."""
    scenario, states = engine.scenario, unseen.states
    actions, prices = policies(engine, states, seed)
    values, costs = engine.table(states)
    true_costs = cost_map.cost(scenario.joint_actions, unseen.results).astype(np.float32)
    fitted = revenue_and_net(actions, RequestPool(scenario, states, {"revenue": values}, costs), prices)
    live = revenue_and_net(
        actions, RequestPool(scenario, states, {"revenue": unseen.outcomes["revenue"]}, true_costs), prices
    )
    rows = [
        {
            "policy": name,
            **{f"fitted_{k}": float(fitted[n][p].mean()) for n, k in enumerate(("revenue", "net"))},
            **{f"live_{k}": float(live[n][p].mean()) for n, k in enumerate(("revenue", "net"))},
        }
        for p, name in enumerate(actions)
    ]
    measures = {"revenue": (fitted[0], live[0]), "revenue − Σ λ C": (fitted[1], live[1])}
    agreements = [{"of": name, **agreement(*pair, seed=seed)} for name, pair in measures.items()]
    return {"policies": rows, "ranking": agreements}
