"""What the views of a single episode tell of it: named terms as plain numbers, and frames."""

from __future__ import annotations

from typing import Any

from marca_env.envs.batched_env import BatchedRecommender, BatchedStep
from marca_env.envs.rendering import views


def request_info(core: BatchedRecommender, step: BatchedStep) -> dict[str, Any]:
    """The named terms of a request that has just ended as plain numbers; else empty."""
    if not step.infos:
        return {}
    return {
        "revenue": float(step.infos["revenue"][0]),
        "expected_revenue": float(step.infos["expected_revenue"][0]),
        "computation": float(step.infos["computation"][0]),
        "cost": dict(zip(core.scenario.cluster_names, step.infos["cost"][0].tolist(), strict=True)),
        "results": dict(zip(core.scenario.stage_names, step.infos["results"][0].tolist(), strict=True)),
        **_felt(core, step),
    }


def _felt(core: BatchedRecommender, step: BatchedStep) -> dict[str, Any]:
    """In windows: what the clusters say, by their names."""
    if core.clusters is None:
        return {}
    names = core.scenario.cluster_names
    of_clusters = {
        key: dict(zip(names, step.infos[key][0].tolist(), strict=True))
        for key in ("load", "degradation", "backlog", "prices")
    }
    return {**of_clusters, "dropped": float(step.infos["dropped"][0])}


def request_frame(core: BatchedRecommender, step: BatchedStep) -> views.View:
    """What is to be seen of the first request of a batch: the one that has just ended, or the one on its way."""
    prices = core.prices if core.prices.ndim == 1 else core.prices[0]
    if not step.infos:
        shown = core.shown_results()[0]
        view = views.request_view(core.engine, core.actions[0], core.turn, shown, None, prices)
    else:
        cost, revenue, results = (step.infos[name][0] for name in ("cost", "revenue", "results"))
        turns = core.encoder.n_turns
        view = views.request_view(core.engine, core.served[0], turns, results, cost, prices, revenue)
    if core.clusters is None:
        return view
    clusters = core.clusters
    felt = (clusters.load[0], clusters.state.degradation[0], clusters.state.waiting_work[0] / core.scenario.cores)
    return views.under_load(view, *felt, f"request {clusters.done} of {clusters.window.requests}")
