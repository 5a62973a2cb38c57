"""Errors of fitted models on data that they were not fitted to, beside the noise of the measurements."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from marca_env.cascade.outcomes import OutcomeTable
from marca_env.logs.schema import WHOLE_REQUESTS, state_table
from marca_env.models.cost_map import CostMap
from marca_env.models.cost_model import CostModel
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import Scenario

_BUCKET = ["stage", "component", "value_bucket", "queue_length"]
DECILES = 10
_STATES = 500


def cost_map_errors(scenario: Scenario, cost_log: pd.DataFrame) -> dict[str, float]:
    """Predict each repeat of a cost log from the others, by the cost map and by the mean of the same bucket.

    Returns:
        ``error`` of the map and test–retest ``spread``, both Σ|prediction − cost| / Σ cost, and their ``ratio``;
        nan where the log has a single repeat.
    """
    return _repeat_errors(_predict_repeats(scenario, cost_log))


def cluster_map_errors(scenario: Scenario, cost_log: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return :func:`cost_map_errors` of the measurements on each cluster."""
    predicted = _predict_repeats(scenario, cost_log)
    return {name: _repeat_errors(predicted[predicted["cluster"] == name]) for name in scenario.cluster_names}


def _predict_repeats(scenario: Scenario, cost_log: pd.DataFrame) -> pd.DataFrame:
    """Add two predictions of each row's cost, made from the other repeats: ``by_map`` and ``by_mean``.

    ``by_mean`` is the mean of the same bucket, nan where the other repeats lack it.
    """
    log = cost_log[~cost_log["component"].isin(["degradation", *WHOLE_REQUESTS])]
    parts = []
    for repeat in sorted(cost_log["repeat"].unique()):
        held_out = log[log["repeat"] == repeat]
        rest = cost_log[cost_log["repeat"] != repeat]
        if len(rest) == 0:
            return held_out.assign(by_map=np.nan, by_mean=np.nan)
        cost_map = CostMap.from_log(scenario, rest)
        by_map = [
            float(cost_map.curves[stage, component](np.asarray(0.0 if component == "base" else length)))
            for stage, component, _, length in held_out[_BUCKET].to_numpy()
        ]
        means = rest.groupby(_BUCKET)["cost"].mean().rename("by_mean")
        parts.append(held_out.assign(by_map=by_map).join(means, on=_BUCKET))
    return pd.concat(parts)


def _repeat_errors(predicted: pd.DataFrame) -> dict[str, float]:
    repeated = predicted[predicted["by_mean"].notna()]
    if len(repeated) == 0:
        return dict.fromkeys(("error", "spread", "ratio"), float("nan"))
    error, spread = (
        float((repeated[k] - repeated["cost"]).abs().sum() / predicted["cost"].sum()) for k in ("by_map", "by_mean")
    )
    return {"error": error, "spread": spread, "ratio": error / spread if spread > 0 else float("nan")}


def result_errors(model: CostModel, log: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Compare predicted with logged candidates of each stage, and signals.

    Returns:
        Stage, or ``<stage>.<signal>`` → ``mae`` (candidates, or the signal's unit), ``relative`` (to the mean; of a
        signal to the standard deviation) and ``r2``.
    """
    scenario = model.scenario
    states, actions = states_and_actions(scenario, log)
    true = log[list(scenario.result_columns)].to_numpy(float)
    predicted = model.results(states, actions)
    signals = [f"{scenario.stage_names[k]}.{name}" for k, name in scenario.signals]
    size = np.concatenate([true[:, : len(scenario.stages)].mean(axis=0), true[:, len(scenario.stages) :].std(axis=0)])
    mae, variance = np.abs(predicted - true).mean(axis=0), true.var(axis=0)
    unexplained = ((predicted - true) ** 2).mean(axis=0) / np.where(variance > 0, variance, np.nan)
    return {
        name: {
            "mae": float(mae[k]),
            "relative": float(mae[k] / max(size[k], 1e-12)),
            "r2": float(1.0 - unexplained[k]),
        }
        for k, name in enumerate([*scenario.stage_names, *signals])
    }


def cost_errors(model: CostModel, log: pd.DataFrame) -> dict[str, float]:
    """Compare the cost of predicted candidates with the cost of the logged ones.

    Returns:
        Cluster → Σ|cost of predicted results − cost of logged results| / Σ cost.
    """
    scenario = model.scenario
    states, actions = states_and_actions(scenario, log)
    results = log[[f"result_{name}" for name in scenario.stage_names]].to_numpy(float)
    true = model.cost_map.cost(actions, results, scenario.site_of(states))
    error = np.abs(model.predict(states, actions) - true).sum(axis=0) / true.sum(axis=0)
    return {name: float(error[k]) for k, name in enumerate(scenario.cluster_names)}


def measured_cost_errors(model: CostModel, log: pd.DataFrame, costs: np.ndarray) -> dict[str, dict[str, float]]:
    """Compare predicted costs with the costs measured for each request, ``costs`` (M, G).

    Returns:
        Cluster → ``error`` Σ|prediction − cost| / Σ cost, and ``calibration`` Σ prediction / Σ cost.
    """
    predicted = model.predict(*states_and_actions(model.scenario, log))
    return {
        name: {
            "error": float(np.abs(predicted - costs)[:, g].sum() / max(costs[:, g].sum(), 1e-12)),
            "calibration": float(predicted[:, g].sum() / max(costs[:, g].sum(), 1e-12)),
        }
        for g, name in enumerate(model.scenario.cluster_names)
    }


def whole_request_errors(model: CostModel, log: pd.DataFrame, cost_log: pd.DataFrame) -> dict[str, float]:
    """Compare the predicted mean cost of uniformly drawn joint actions with that measured on whole requests.

    The difference shows what the sum over components misses, and what shifts between replays.

    Returns:
        Cluster → prediction / measurement − 1; clusters without such rows are left out.
    """
    states = state_table(model.scenario, log)[:_STATES]
    predicted = model.table(states)[1].mean(axis=(0, 1))
    measured = cost_log[cost_log["component"] == "request"].groupby("cluster")["cost"].mean()
    return {
        name: float(predicted[g] / measured[name] - 1.0)
        for g, name in enumerate(model.scenario.cluster_names)
        if name in measured.index
    }


def revenue_errors(model: RevenueModel, log: pd.DataFrame) -> dict[str, float]:
    """Compare predicted with logged (sampled) revenue.

    Returns:
        ``spearman``; ``calibration`` Σ prediction / Σ revenue; ``decile_error``, the mean
        |Σ prediction / Σ revenue − 1| over tenths of the requests by prediction.
    """
    predicted = model.predict(*states_and_actions(model.scenario, log)).astype(float)
    revenue = log["revenue"].to_numpy(float)
    tenths = np.array_split(np.argsort(predicted, kind="stable"), DECILES)
    ratios = [predicted[k].sum() / max(revenue[k].sum(), 1e-12) for k in tenths if len(k)]
    return {
        "spearman": float(stats.spearmanr(predicted, revenue).statistic),
        "calibration": float(predicted.sum() / max(revenue.sum(), 1e-12)),
        "decile_error": float(np.mean(np.abs(np.array(ratios) - 1.0))),
    }


def truth_errors(model: RevenueModel, table: OutcomeTable) -> dict[str, float]:
    """Compare predicted revenue with the live cascade's true expected revenue of every joint action.

    Returns:
        ``spearman`` over all (request, action) pairs, limited by what a platform cannot observe of a user;
        ``by_group`` over the means of tenths of the requests (by predicted value) under each joint action, where
        unobserved differences average out; ``by_action`` over the means of the joint actions; ``calibration``.
    """
    true, predicted = table.outcomes["revenue"].astype(float), model.table(table.states).astype(float)
    tenths = np.array_split(np.argsort(predicted.mean(axis=1), kind="stable"), DECILES)
    grouped = [np.concatenate([x[rows].mean(axis=0) for rows in tenths]) for x in (predicted, true)]
    return {
        "spearman": float(stats.spearmanr(predicted.ravel(), true.ravel()).statistic),
        "by_group": float(stats.spearmanr(*grouped).statistic),
        "by_action": float(stats.spearmanr(predicted.mean(axis=0), true.mean(axis=0)).statistic),
        "calibration": float(predicted.sum() / true.sum()),
    }


def states_and_actions(scenario: Scenario, log: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the states (M, W) and joint actions (M, D) int64 of a request log."""
    return state_table(scenario, log), log[list(scenario.decision_names)].to_numpy(np.int64)
