"""Frames as lines of text, for ``render_mode="ansi"``."""

from __future__ import annotations

from marca_env.envs.rendering.views import ClusterView, View

_BAR = 24
"""Width of the funnel in characters."""


def as_text(view: View) -> str:
    """Return the frame as lines of text."""
    lines = [view.title]
    for stage in view.stages:
        settled = stage.candidates is not None
        bar = "█" * max(1, round(_BAR * min(1.0, (stage.candidates or 0.0) / view.widest) ** 0.5)) if settled else "·"
        count = f"{stage.candidates:6.0f}" if settled else "     ?"
        cost = "" if stage.cost is None else f"{1e3 * stage.cost:9.3f} core-ms"
        settings = " ".join(f"{name}={option}" for name, option in stage.settings)
        lines.append(f"{stage.name:>14} {bar:^{_BAR}} {count}{cost}  {settings}".rstrip())
    return "\n".join([*lines, *map(_cluster_line, view.clusters)])


def _cluster_line(cluster: ClusterView) -> str:
    """Return the line of a cluster: load, degradation, backlog, cost and price."""
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
