"""Infos and rendered frames of a single episode, taken from a batch of one."""

from __future__ import annotations

from typing import Any

from marca_env.envs.batched_env import BatchedRecommender, BatchedStep
from marca_env.envs.fleet_env import BatchedFleet
from marca_env.envs.rendering import views

NUMBER_TERMS = ("revenue", "expected_revenue", "computation", "latency", "late", "dropped")
"""Infos of a batch that are one number per request."""
CLUSTER_TERMS = ("cost", "load", "degradation", "backlog", "prices")
"""Infos of a batch that are one number per request and cluster; ``results`` has one per stage."""


def request_info(core: BatchedRecommender | BatchedFleet, step: BatchedStep) -> dict[str, Any]:
    """Return the terms of a request (of a fleet: of a slice) that has just ended; an empty dict within a request.

    The numbers are plain. Of a fleet the terms are those of the team.
    """
    if not step.infos:
        return {}
    names, terms = core.scenario.cluster_names, step.infos
    results = terms["results"][0].tolist()
    is_fleet = isinstance(core, BatchedFleet)
    return {
        **{key: float(terms[key][0]) for key in NUMBER_TERMS if key in terms},
        **({} if is_fleet else {"results": dict(zip(core.scenario.stage_names, results, strict=True))}),
        **{key: dict(zip(names, terms[key][0].tolist(), strict=True)) for key in CLUSTER_TERMS if key in terms},
    }


def site_infos(core: BatchedFleet, step: BatchedStep) -> dict[str, dict[str, Any]]:
    """Return the terms of each site's own request in a slice that has just ended, by agent."""
    if not step.infos:
        return {}
    revenue, results = step.infos["site_revenue"][0].tolist(), step.infos["results"][0].tolist()
    names = core.scenario.stage_names
    return {
        agent: {"site_revenue": revenue[k], "results": dict(zip(names, results[k], strict=True))}
        for k, agent in enumerate(core.agents)
    }


def request_frame(core: BatchedRecommender | BatchedFleet, step: BatchedStep, k: int = 0) -> views.View:
    """Return the view of request ``k`` of the batch: its final state if it has just ended, else its state so far."""
    if isinstance(core, BatchedFleet):
        return _fleet_frame(core, step, k)
    prices = core.prices if core.prices.ndim == 1 else core.prices[k]
    if not step.infos:
        results = core.visible_results()[k]
        view = views.request_view(core.engine, core.actions[k], core.turn, results, None, prices)
    else:
        cost, revenue, results = (step.infos[name][k] for name in ("cost", "revenue", "results"))
        turns = core.encoder.n_turns
        view = views.request_view(core.engine, core.executed_actions[k], turns, results, cost, prices, revenue)
    return view if core.clusters is None else _with_clusters(view, core, k, "request")


def _fleet_frame(core: BatchedFleet, step: BatchedStep, k: int) -> views.View:
    """Return the view of fleet ``k`` of the batch: the decisions and the candidates of each site."""
    ended = bool(step.infos)
    actions, turn = (core.executed_actions, core.encoder.n_turns) if ended else (core.actions, core.turn)
    results = step.infos["results"][k] if ended else core.visible_results()[k]
    revenue = float(step.infos["revenue"][k]) if ended else None
    view = views.fleet_view(core.scenario, core.agents, actions[k], turn, results, core.prices[k], revenue)
    return _with_clusters(view, core, k, "slice")


def _with_clusters(view: views.View, core: BatchedRecommender | BatchedFleet, k: int, unit: str) -> views.View:
    """Return the view with the state of the clusters of episode ``k``; ``unit`` is what a window counts."""
    clusters = core.clusters
    assert clusters is not None
    state = (clusters.load[k], clusters.state.degradation[k], clusters.state.waiting_work[k] / core.scenario.cores)
    return views.with_cluster_load(view, *state, f"{unit} {clusters.n_served} of {clusters.window.requests}")
