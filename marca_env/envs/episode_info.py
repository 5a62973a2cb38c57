"""Infos and rendered frames of a single episode, taken from a batch of one."""

from __future__ import annotations

from typing import Any

from marca_env.envs.batched_env import BatchedRecommender, BatchedStep
from marca_env.envs.rendering import views

NUMBER_TERMS = ("revenue", "expected_revenue", "computation", "dropped")
"""Infos of a batch that are one number per request."""
CLUSTER_TERMS = ("cost", "load", "degradation", "backlog", "prices")
"""Infos of a batch that are one number per request and cluster; ``results`` has one per stage."""


def request_info(core: BatchedRecommender, step: BatchedStep) -> dict[str, Any]:
    """Return the terms of a request that has just ended as plain numbers; an empty dict within a request."""
    if not step.infos:
        return {}
    names, terms = core.scenario.cluster_names, step.infos
    return {
        **{key: float(terms[key][0]) for key in NUMBER_TERMS if key in terms},
        "results": dict(zip(core.scenario.stage_names, terms["results"][0].tolist(), strict=True)),
        **{key: dict(zip(names, terms[key][0].tolist(), strict=True)) for key in CLUSTER_TERMS if key in terms},
    }


def request_frame(core: BatchedRecommender, step: BatchedStep, k: int = 0) -> views.View:
    """Return the view of request ``k`` of the batch: its final state if it has just ended, else its state so far."""
    prices = core.prices if core.prices.ndim == 1 else core.prices[k]
    if not step.infos:
        results = core.visible_results()[k]
        view = views.request_view(core.engine, core.actions[k], core.turn, results, None, prices)
    else:
        cost, revenue, results = (step.infos[name][k] for name in ("cost", "revenue", "results"))
        turns = core.encoder.n_turns
        view = views.request_view(core.engine, core.executed_actions[k], turns, results, cost, prices, revenue)
    if core.clusters is None:
        return view
    clusters = core.clusters
    state = (clusters.load[k], clusters.state.degradation[k], clusters.state.waiting_work[k] / core.scenario.cores)
    return views.with_cluster_load(view, *state, f"request {clusters.n_served} of {clusters.window.requests}")
