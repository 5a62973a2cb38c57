"""Frames of the cascade: a funnel of queues with what it costs, and the load of the clusters under the prices.

Text for a terminal (``ansi``) and plain bars as pixels (``rgb_array``, numpy alone). Render modes are checked here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from marca_env.cluster import ControlObservation
from marca_env.errors import InputError, unknown_option
from marca_env.scenario import Scenario

RENDER_MODES = ("ansi", "rgb_array")
_WIDTH, _BAR, _GAP = 320, 24, 12
_PAPER, _BLUE, _RED, _GREY = (250, 250, 250), (62, 117, 178), (200, 70, 60), (205, 205, 205)


def checked_mode(render_mode: str | None) -> str | None:
    """The mode as it is.

    Raises:
        InputError: an unknown mode.
    """
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise InputError(unknown_option("render_mode", render_mode, RENDER_MODES))
    return render_mode


def request_text(
    scenario: Scenario, actions: np.ndarray, turn: int, results: np.ndarray, cost: np.ndarray | None, prices: np.ndarray
) -> str:
    """A request on its way through the funnel.

    Args:
        scenario: the recommender.
        actions: (D,) option indices; those from ``turn`` on are still open.
        turn: decisions made.
        results: (S,) candidates of each stage; zeros where not known yet.
        cost: (G,) core-seconds; ``None`` before the end.
        prices: (G,) λ.
    """
    widest = max(float(np.max(results)), 1.0)
    lines = []
    for s, stage in enumerate(scenario.stages):
        bar = "█" * max(1, round(24 * float(results[s]) / widest)) if results[s] > 0 else "·"
        count = f"{results[s]:6.0f}" if results[s] > 0 else "     ?"
        made = [
            f"{d.name}={_option(d.options[actions[k]]) if k < turn else '?'}"
            for k, d in enumerate(scenario.decisions)
            if scenario.decision_stage[k] == s
        ]
        lines.append(f"{stage.name:>14} {bar:^24} {count}  {' '.join(made)}".rstrip())
    for g, name in enumerate(scenario.cluster_names):
        spent = "?" if cost is None else f"{1e3 * cost[g]:.2f} core-ms"
        lines.append(f"{name:>14} cost {spent}  λ {prices[g]:.3g}")
    return "\n".join(lines)


def cluster_text(scenario: Scenario, observation: ControlObservation, revenue: float) -> str:
    """A minute of the clusters: load against budget, degradation, backlog and prices."""
    minute = observation.minute % 1440
    lines = [f"{minute // 60:02d}:{minute % 60:02d}  {observation.qps:7.1f} requests/s  revenue {revenue:.2f}"]
    for g, name in enumerate(scenario.cluster_names):
        share = float(observation.load[g] / observation.budget[g])
        bar = ("█" * min(20, round(20 * share))).ljust(20, "░") + ("▲" if share > 1 else " ")
        state = f"D {int(observation.degradation[g])}  backlog {observation.backlog[g]:.1f} s"
        load = f"{observation.load[g]:6.2f} of {observation.budget[g]:.2f} cores"
        lines.append(f"{name:>14} {bar} {load}  {state}  λ {observation.prices[g]:.3g}")
    return "\n".join(lines)


def request_pixels(results: np.ndarray) -> np.ndarray:
    """The funnel as centred bars, one per stage; uint8 (height, width, 3)."""
    widest = max(float(np.max(results)), 1.0)
    return _bars([(float(r) / widest, _BLUE) for r in results], centred=True)


def cluster_pixels(observation: ControlObservation) -> np.ndarray:
    """Load of each cluster as a bar, red above the budget (the middle of the frame); uint8 (height, width, 3)."""
    shares = np.asarray(observation.load) / observation.budget
    return _bars([(min(float(x) / 2, 1.0), _RED if x > 1 else _BLUE) for x in shares], centred=False)


def _bars(bars: Iterable[tuple[float, tuple[int, int, int]]], centred: bool) -> np.ndarray:
    bars = list(bars)
    frame = np.full((len(bars) * (_BAR + _GAP) + _GAP, _WIDTH, 3), _PAPER, dtype=np.uint8)
    if not centred:
        frame[:, _WIDTH // 2] = _GREY
    for k, (share, colour) in enumerate(bars):
        top, length = _GAP + k * (_BAR + _GAP), max(2, round(share * _WIDTH))
        left = (_WIDTH - length) // 2 if centred else 0
        frame[top : top + _BAR, left : left + length] = colour
    return frame


def _option(option: object) -> str:
    return "+".join(option) if isinstance(option, tuple) else str(option)
