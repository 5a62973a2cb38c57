"""How far the fitted models can be trusted: errors on what they have not seen, beside the noise of the measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from marca_env.models.cost_map import CostMap
from marca_env.scenario.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

    from marca_env.cascade.outcomes import OutcomeTable
    from marca_env.models.cost_model import CostModel
    from marca_env.models.revenue_model import RevenueModel

_BUCKET = ["stage", "component", "value_bucket", "queue_length"]
DECILES = 10
_STATES = 500


def cost_map_errors(scenario: Scenario, cost_log: pd.DataFrame) -> dict[str, float]:
    """Each repeat predicted from the others, by the map and by the plain mean of the same bucket.

    Returns:
        ``error`` and ``spread`` (test–retest), both Σ|prediction − cost| / Σ cost, and their ``ratio``;
        nan where there is a single repeat.
    """
    return _repeat_errors(_held_repeats(scenario, cost_log))


def cluster_map_errors(scenario: Scenario, cost_log: pd.DataFrame) -> dict[str, dict[str, float]]:
    """:func:`cost_map_errors` of the measurements on each cluster."""
    held = _held_repeats(scenario, cost_log)
    return {name: _repeat_errors(held[held["cluster"] == name]) for name in scenario.cluster_names}


def _held_repeats(scenario: Scenario, cost_log: pd.DataFrame) -> pd.DataFrame:
    """The log's components with what the other repeats say of each row: ``by_map``, and ``again``, the same bucket's
    mean there (nan where there is none)."""

    log = cost_log[~cost_log["component"].isin(["degradation", "request"])]
    parts = []
    for repeat in sorted(cost_log["repeat"].unique()):
        held = log[log["repeat"] == repeat]
        rest = cost_log[cost_log["repeat"] != repeat]
        if len(rest) == 0:
            return held.assign(by_map=np.nan, again=np.nan)
        fitted = CostMap.from_log(scenario, rest)
        by_map = [
            float(fitted.curves[stage, component](np.asarray(0.0 if component == "base" else length)))
            for stage, component, _, length in held[_BUCKET].to_numpy()
        ]
        means = rest.groupby(_BUCKET)["cost"].mean().rename("again")
        parts.append(held.assign(by_map=by_map).join(means, on=_BUCKET))
    return pd.concat(parts)


def _repeat_errors(held: pd.DataFrame) -> dict[str, float]:
    known = held[held["again"].notna()]
    if len(known) == 0:
        return dict.fromkeys(("error", "spread", "ratio"), float("nan"))
    error, spread = (float((known[k] - known["cost"]).abs().sum() / held["cost"].sum()) for k in ("by_map", "again"))
    return {"error": error, "spread": spread, "ratio": error / spread if spread > 0 else float("nan")}


def result_errors(model: CostModel, log: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Of each stage: mean absolute error in candidates, the same relative to the mean, and R²."""
    scenario = model.scenario
    states, actions = _columns(scenario, log)
    true = log[[f"result_{name}" for name in scenario.stage_names]].to_numpy(float)
    predicted = model.results(states, actions)
    miss, variance = np.abs(predicted - true).mean(axis=0), true.var(axis=0)
    unexplained = ((predicted - true) ** 2).mean(axis=0) / np.where(variance > 0, variance, np.nan)
    return {
        name: {
            "mae": float(miss[k]),
            "relative": float(miss[k] / max(true[:, k].mean(), 1e-12)),
            "r2": float(1.0 - unexplained[k]),
        }
        for k, name in enumerate(scenario.stage_names)
    }


def cost_errors(model: CostModel, log: pd.DataFrame) -> dict[str, float]:
    """Of each cluster: Σ|cost of the predicted results − cost of the true results| / Σ cost."""
    scenario = model.scenario
    states, actions = _columns(scenario, log)
    results = log[[f"result_{name}" for name in scenario.stage_names]].to_numpy(float)
    true = model.cost_map.cost(actions, results, scenario.site_of(states))
    miss = np.abs(model.predict(states, actions) - true).sum(axis=0) / true.sum(axis=0)
    return {name: float(miss[k]) for k, name in enumerate(scenario.cluster_names)}


def whole_request_errors(model: CostModel, log: pd.DataFrame, cost_log: pd.DataFrame) -> dict[str, float]:
    """Of each cluster: predicted mean cost of uniformly drawn joint actions over that measured on whole requests, − 1.

    This is what the sum over components misses, and what shifts between replays. Clusters without rows are left out.
    """
    states = log[list(model.scenario.feature_names)].to_numpy(np.int64)[:_STATES]
    predicted = model.table(states)[1].mean(axis=(0, 1))
    whole = cost_log[cost_log["component"] == "request"].groupby("cluster")["cost"].mean()
    return {
        name: float(predicted[g] / whole[name] - 1.0)
        for g, name in enumerate(model.scenario.cluster_names)
        if name in whole.index
    }


def revenue_errors(model: RevenueModel, log: pd.DataFrame) -> dict[str, float]:
    """Against sampled revenue: ``spearman``, ``calibration`` Σ prediction / Σ revenue, and ``decile_error``, the mean
    |Σ prediction / Σ revenue − 1| over tenths of the requests by prediction."""
    predicted = model.predict(*_columns(model.scenario, log)).astype(float)
    earned = log["revenue"].to_numpy(float)
    tenths = np.array_split(np.argsort(predicted, kind="stable"), DECILES)
    ratios = [predicted[k].sum() / max(earned[k].sum(), 1e-12) for k in tenths if len(k)]
    return {
        "spearman": float(stats.spearmanr(predicted, earned).statistic),
        "calibration": float(predicted.sum() / max(earned.sum(), 1e-12)),
        "decile_error": float(np.mean(np.abs(np.array(ratios) - 1.0))),
    }


def truth_errors(model: RevenueModel, table: OutcomeTable) -> dict[str, float]:
    """Against the live cascade's true expected revenue of every joint action of unseen requests.

    Returns:
        ``spearman`` over all (request, action) pairs, which what a platform does not observe of a user bounds;
        ``by_group`` over the means of tenths of the requests (by predicted value) under each joint action, where that
        averages out; ``by_action`` over the means of the joint actions; ``calibration``.
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


def _columns(scenario: Scenario, log: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return log[list(scenario.feature_names)].to_numpy(np.int64), log[list(scenario.decision_names)].to_numpy(np.int64)
