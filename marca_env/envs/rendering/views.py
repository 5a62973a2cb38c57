"""Frames of the cascade: a funnel of queues with what each stage costs, and the clusters' load under the prices.

What is to be seen is put together as a :class:`View`; :func:`as_text` shows it in a terminal (``ansi``) and
:func:`marca_env.envs.rendering.drawing.as_pixels` as a picture (``rgb_array``, and ``human`` in a window).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from marca_env.models.nominal_results import nominal_results
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.control import ControlObservation
from marca_env.utils.errors import InputError, unknown_option

if TYPE_CHECKING:
    from marca_env.models.engine import Engine

RENDER_MODES = ("ansi", "rgb_array", "human")
_BAR = 24
_HISTORY = 1440


@dataclass(frozen=True)
class StageView:
    """A stage of the funnel."""

    name: str
    settings: tuple[tuple[str, str], ...]
    """(decision, option) of its knobs; ``?`` where not decided yet."""
    candidates: float | None
    """Processed; None where not settled yet."""
    cost: float | None
    """Core-seconds; None where not known."""


@dataclass(frozen=True)
class ClusterView:
    """A cluster and its price."""

    name: str
    load: float | None
    """Core-seconds per second; None where not known."""
    budget: float
    price: float
    cost: float | None = None
    """Core-seconds of the request."""
    degradation: int | None = None
    backlog: float | None = None
    """Seconds of its cores."""
    history: tuple[tuple[float, float], ...] = ()
    """(load over budget, price) of the periods so far, the last one last."""


@dataclass(frozen=True)
class View:
    """A frame."""

    title: str
    stages: tuple[StageView, ...]
    clusters: tuple[ClusterView, ...]
    load_is: str
    """What the load means, in a few words."""
    widest: float = 1.0
    """Candidates that fill the width of the funnel: the most that the scenario lets through."""


def checked_mode(render_mode: str | None) -> str | None:
    """The mode as it is.

    Raises:
        InputError: an unknown mode.
    """
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise InputError(unknown_option("render_mode", render_mode, RENDER_MODES))
    return render_mode


# -- what is to be seen ------------------------------------------------------------------------------------------
def request_view(
    engine: Engine,
    actions: np.ndarray,
    turn: int,
    results: np.ndarray,
    cost: np.ndarray | None,
    prices: np.ndarray,
    revenue: float | None = None,
) -> View:
    """A request on its way through the funnel.

    Args:
        engine: what serves it.
        actions: (D,) option indices; those from ``turn`` on are still open.
        turn: decisions made.
        results: (S,) candidates of each stage; zeros where not known yet.
        cost: (G,) core-seconds; ``None`` before the end.
        prices: (G,) λ.
        revenue: currency; ``None`` before the end.
    """
    scenario = engine.scenario
    of_stages = None if cost is None else engine.stage_costs(actions[None], results[None])
    stages = []
    for s, stage in enumerate(scenario.stages):
        settings = tuple(
            (d.name, _option(d.options[actions[k]]) if k < turn else "?")
            for k, d in enumerate(scenario.decisions)
            if scenario.decision_stage[k] == s
        )
        spent = None if of_stages is None else float(of_stages[0, s])
        stages.append(StageView(stage.name, settings, float(results[s]) if results[s] > 0 else None, spent))
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
    done = f"revenue {revenue:.4g}" if revenue is not None else f"decision {turn} of {len(scenario.decisions)}"
    load_is = f"if all {scenario.peak_qps:g} requests/s cost this"
    return View(f"{scenario.name}: {done}", tuple(stages), clusters, load_is, _widest(scenario))


def under_load(view: View, load: np.ndarray, degradation: np.ndarray, backlog: np.ndarray, where: str) -> View:
    """The view of a request in a window: the clusters' real load (G,), levels (G,) and backlog (G,), seconds."""
    clusters = tuple(
        replace(c, load=float(load[g]), degradation=int(degradation[g]), backlog=float(backlog[g]))
        for g, c in enumerate(view.clusters)
    )
    return replace(view, title=f"{view.title}, {where}", clusters=clusters, load_is="of the last slice of traffic")


def cluster_view(
    scenario: Scenario, observation: ControlObservation, revenue: float, past: list[ControlObservation] | None = None
) -> View:
    """A period of the clusters: load against budget, degradation, backlog and prices, and the periods before it."""
    minute = observation.minute % 1440
    shown = [*(past or []), observation][-_HISTORY:]
    clusters = tuple(
        ClusterView(
            name,
            float(observation.load[g]),
            float(observation.budget[g]),
            float(observation.prices[g]),
            degradation=int(observation.degradation[g]),
            backlog=float(observation.backlog[g]),
            history=tuple((float(o.load[g] / o.budget[g]), float(o.prices[g])) for o in shown),
        )
        for g, name in enumerate(scenario.cluster_names)
    )
    title = f"{minute // 60:02d}:{minute % 60:02d}  {observation.qps:7.1f} requests/s  revenue {revenue:.2f}"
    return View(title, (), clusters, "undegraded load of the last period")


def _widest(scenario: Scenario) -> float:
    dearest = np.array([scenario.action_shape]) - 1
    return float(nominal_results(scenario, dearest).max())


def _option(option: object) -> str:
    return "+".join(option) if isinstance(option, tuple) else str(option)


# -- text --------------------------------------------------------------------------------------------------------
def as_text(view: View) -> str:
    """The frame as lines of text."""
    lines = [view.title]
    for stage in view.stages:
        known = stage.candidates is not None
        bar = "█" * max(1, round(_BAR * min(1.0, (stage.candidates or 0.0) / view.widest) ** 0.5)) if known else "·"
        count = f"{stage.candidates:6.0f}" if known else "     ?"
        cost = "" if stage.cost is None else f"{1e3 * stage.cost:9.3f} core-ms"
        made = " ".join(f"{name}={option}" for name, option in stage.settings)
        lines.append(f"{stage.name:>14} {bar:^{_BAR}} {count}{cost}  {made}".rstrip())
    return "\n".join([*lines, *map(_cluster_line, view.clusters)])


def _cluster_line(cluster: ClusterView) -> str:
    parts = []
    if cluster.load is not None:
        share = cluster.load / cluster.budget
        bar = ("█" * min(20, round(20 * share))).ljust(20, "░") + ("▲" if share > 1 else " ")
        parts.append(f"{bar} {cluster.load:6.2f} of {cluster.budget:.2f} cores")
    if cluster.degradation is not None:
        parts.append(f"D {cluster.degradation}")
    if cluster.backlog is not None:
        parts.append(f"backlog {cluster.backlog:.1f} s")
    if cluster.degradation is None:
        parts.append("cost ?" if cluster.cost is None else f"cost {1e3 * cluster.cost:.2f} core-ms")
    return f"{cluster.name:>14} {'  '.join(parts)}  λ {cluster.price:.3g}"


# -- frames ------------------------------------------------------------------------------------------------------
class Screen:
    """Shows views in one render mode; in ``human`` mode, in a window of its own that :meth:`close` closes."""

    def __init__(self, mode: str | None, fps: float) -> None:
        self.mode, self.fps = checked_mode(mode), fps
        self._window: Any = None

    def show(self, view: View) -> str | np.ndarray | None:
        """Text (``ansi``) or pixels (``rgb_array``, uint8 (height, width, 3)); else ``None``."""
        if self.mode is None:
            return None
        if self.mode == "ansi":
            return as_text(view)
        from marca_env.envs.rendering.drawing import PygameWindow, as_pixels

        pixels = as_pixels(view)
        if self.mode == "rgb_array":
            return pixels
        if self._window is None:
            self._window = PygameWindow(f"marca-env {view.title.partition(':')[0]}", self.fps)
        self._window.show(pixels)
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None
