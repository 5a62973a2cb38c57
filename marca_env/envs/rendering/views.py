"""Content of a frame: the funnel of queues with the cost of each stage, and the load of the clusters at the prices.

A :class:`View` holds the content; :func:`marca_env.envs.rendering.text.as_text` turns it into text and
:func:`marca_env.envs.rendering.drawing.as_pixels` into a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from marca_env.models.nominal_results import nominal_results
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.control import ControlObservation
from marca_env.utils.units import MINUTES_PER_DAY

if TYPE_CHECKING:
    from marca_env.models.engine import Engine

_HISTORY = MINUTES_PER_DAY
"""Largest number of past periods in a frame."""


@dataclass(frozen=True)
class StageView:
    """A stage of the funnel."""

    name: str
    settings: tuple[tuple[str, str], ...]
    """(decision, option) of its knobs; option ``?`` before the decision."""
    candidates: float | None
    """Candidates processed; None before they are settled."""
    cost: float | None
    """Core-seconds; None if unknown."""


@dataclass(frozen=True)
class ClusterView:
    """A cluster: its load, budget, state and price."""

    name: str
    load: float | None
    """Core-seconds per second; None if unknown."""
    budget: float
    """Core-seconds per second."""
    price: float
    """λ, currency per core-second."""
    cost: float | None = None
    """Core-seconds of the request."""
    degradation: int | None = None
    """Level in force."""
    backlog: float | None = None
    """Seconds that its cores need for the waiting work."""
    history: tuple[tuple[float, float], ...] = ()
    """(load over budget, price) of the periods so far, in order of time."""


@dataclass(frozen=True)
class View:
    """Content of a frame."""

    title: str
    stages: tuple[StageView, ...]
    clusters: tuple[ClusterView, ...]
    load_caption: str
    """Meaning of the load in a few words."""
    widest: float = 1.0
    """Candidates at the full width of the funnel: the most that the scenario allows."""


def request_view(
    engine: Engine,
    actions: np.ndarray,
    turn: int,
    results: np.ndarray,
    cost: np.ndarray | None,
    prices: np.ndarray,
    revenue: float | None = None,
) -> View:
    """Return the view of a request on its way through the funnel.

    Args:
        engine: engine that serves the request.
        actions: (D,) option indices; those from ``turn`` on are not decided yet.
        turn: number of decisions made.
        results: (S,) candidates of each stage; zeros before they are settled.
        cost: (G,) core-seconds; ``None`` before the end.
        prices: (G,) λ, currency per core-second.
        revenue: currency; ``None`` before the end.
    """
    scenario = engine.scenario
    stage_costs = None if cost is None else engine.stage_costs(actions[None], results[None])
    stages = []
    all_settings = _settings(scenario, actions, turn)
    for s, stage in enumerate(scenario.stages):
        settings = tuple(all_settings[k] for k in np.flatnonzero(scenario.decision_stage == s))
        stage_cost = None if stage_costs is None else float(stage_costs[0, s])
        stages.append(StageView(stage.name, settings, float(results[s]) if results[s] > 0 else None, stage_cost))
    clusters = tuple(
        ClusterView(
            c.name,
            None if cost is None else float(cost[g]) * scenario.peak_qps,
            c.budget,
            float(prices[g]),
            cost=None if cost is None else float(cost[g]),
        )
        for g, c in enumerate(scenario.clusters)
    )
    progress = f"revenue {revenue:.4g}" if revenue is not None else f"decision {turn} of {len(scenario.decisions)}"
    load_caption = f"if all {scenario.peak_qps:g} requests/s cost this"
    return View(f"{scenario.name}: {progress}", tuple(stages), clusters, load_caption, _widest(scenario))


def fleet_view(
    scenario: Scenario,
    sites: Sequence[str],
    actions: np.ndarray,
    turn: int,
    results: np.ndarray,
    prices: np.ndarray,
    revenue: float | None = None,
) -> View:
    """Return the view of a slice of requests, one of each of N sites.

    Args:
        scenario: the recommender.
        sites: names of the sites.
        actions: (N,D) option indices; those from ``turn`` on are not decided yet.
        turn: number of decisions made.
        results: (N,R) results of the stages; zeros before they are settled.
        prices: (G,) λ, currency per core-second.
        revenue: of the team, currency; ``None`` before the end.
    """
    last = len(scenario.stages) - 1
    rows = tuple(
        StageView(
            name, _settings(scenario, actions[k], turn), float(results[k, last]) if results[k, last] > 0 else None, None
        )
        for k, name in enumerate(sites)
    )
    clusters = tuple(ClusterView(c.name, None, c.budget, float(prices[g])) for g, c in enumerate(scenario.clusters))
    progress = f"revenue {revenue:.4g}" if revenue is not None else f"decision {turn} of {len(scenario.decisions)}"
    return View(f"{scenario.name}: {progress}", rows, clusters, "of the last slice of traffic", _widest(scenario))


def with_cluster_load(
    view: View, load: np.ndarray, degradation: np.ndarray, backlog: np.ndarray, position: str
) -> View:
    """Return the view of a request in a window, with the real state of the clusters.

    Args:
        view: view of the request.
        load: (G,) core-seconds per second.
        degradation: (G,) levels.
        backlog: (G,) seconds.
        position: position in the window, for the title.
    """
    clusters = tuple(
        replace(c, load=float(load[g]), degradation=int(degradation[g]), backlog=float(backlog[g]))
        for g, c in enumerate(view.clusters)
    )
    return replace(
        view, title=f"{view.title}, {position}", clusters=clusters, load_caption="of the last slice of traffic"
    )


def cluster_view(
    scenario: Scenario, observation: ControlObservation, revenue: float, past: list[ControlObservation] | None = None
) -> View:
    """Return the view of a control period: load, budget, degradation, backlog and prices, and their history."""
    minute = observation.minute % MINUTES_PER_DAY
    periods = [*(past or []), observation][-_HISTORY:]
    clusters = tuple(
        ClusterView(
            name,
            float(observation.load[g]),
            float(observation.budget[g]),
            float(observation.prices[g]),
            degradation=int(observation.degradation[g]),
            backlog=float(observation.backlog[g]),
            history=tuple((float(o.load[g] / o.budget[g]), float(o.prices[g])) for o in periods),
        )
        for g, name in enumerate(scenario.cluster_names)
    )
    title = f"{minute // 60:02d}:{minute % 60:02d}  {observation.qps:7.1f} requests/s  revenue {revenue:.2f}"
    return View(title, (), clusters, "undegraded load of the last period")


def _settings(scenario: Scenario, actions: np.ndarray, turn: int) -> tuple[tuple[str, str], ...]:
    """Return (decision, option) of each decision; option ``?`` from ``turn`` on."""
    return tuple(
        (d.name, _option(d.options[actions[k]]) if k < turn else "?") for k, d in enumerate(scenario.decisions)
    )


def _widest(scenario: Scenario) -> float:
    """Return the largest number of candidates of any stage."""
    most_expensive = np.array([scenario.action_shape]) - 1
    return float(nominal_results(scenario, most_expensive).max())


def _option(option: object) -> str:
    """Return an option as text."""
    return "+".join(option) if isinstance(option, tuple) else str(option)
