"""Infos and rendered frames of a single episode, taken from a batch of one."""

from __future__ import annotations

from typing import Any

from marca_env.envs.batched_env import BatchedRecommender, BatchedStep
from marca_env.envs.rendering import views


def request_info(core: BatchedRecommender, step: BatchedStep) -> dict[str, Any]:
    """Return the terms of a request that has just ended as plain numbers; an empty dict within a request."""
    if not step.infos:
        return {}
    return {
        "revenue": float(step.infos["revenue"][0]),
        "expected_revenue": float(step.infos["expected_revenue"][0]),
        "computation": float(step.infos["computation"][0]),
        "cost": dict(zip(core.scenario.cluster_names, step.infos["cost"][0].tolist(), strict=True)),
        "results": dict(zip(core.scenario.stage_names, step.infos["results"][0].tolist(), strict=True)),
        **_cluster_info(core, step),
    }


def _cluster_info(core: BatchedRecommender, step: BatchedStep) -> dict[str, Any]:
    """Return load, degradation, backlog and prices by cluster and the dropped share; empty without a window."""
    if core.clusters is None:
        return {}
    names = core.scenario.cluster_names
    by_cluster = {
        key: dict(zip(names, step.infos[key][0].tolist(), strict=True))
        for key in ("load", "degradation", "backlog", "prices")
    }
    return {**by_cluster, "dropped": float(step.infos["dropped"][0])}


def request_frame(core: BatchedRecommender, step: BatchedStep) -> views.View:
    """Return the view of the batch's first request: its final state if it has just ended, else its state so far."""
    prices = core.prices if core.prices.ndim == 1 else core.prices[0]
    if not step.infos:
        results = core.visible_results()[0]
        view = views.request_view(core.engine, core.actions[0], core.turn, results, None, prices)
    else:
        cost, revenue, results = (step.infos[name][0] for name in ("cost", "revenue", "results"))
        turns = core.encoder.n_turns
        view = views.request_view(core.engine, core.executed_actions[0], turns, results, cost, prices, revenue)
    if core.clusters is None:
        return view
    clusters = core.clusters
    state = (clusters.load[0], clusters.state.degradation[0], clusters.state.waiting_work[0] / core.scenario.cores)
    return views.with_cluster_load(view, *state, f"request {clusters.n_served} of {clusters.window.requests}")
