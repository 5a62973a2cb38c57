"""Figures of balancing: load against budget with the price λ below, methods side by side; and a sweep of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.plotting.style import (
    CYCLE,
    GREY,
    LATENCY_LABEL,
    PRICE_LABEL,
    PURPLE,
    RED,
    TRAFFIC,
    draw_latency,
    mark_cut_off,
    new_figure,
    open_axes,
    save_figure,
)
from benchmarks.plotting.time_windows import NOTE, TimeWindows, shade_windows

USED, OVER, LINE, PRICE = "#9dc3dd", RED, "#1f5f8b", PURPLE


def side_by_side(
    runs: Mapping[str, pd.DataFrame],
    clusters: Sequence[str],
    title: str,
    path: Path,
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    windows: TimeWindows | None = None,
    limit: float | None = None,
) -> None:
    """Draw a column per method: traffic, for each cluster the load in budgets and λ, and with a limit the latency.

    Loads above the end of their axis are marked by triangles, with the highest value.

    Args:
        runs: method → minutes of :func:`marca_env.traffic.day_simulator.replay`, all of the same day.
        clusters: G names.
        title: title of the figure.
        path: PNG file to write.
        scores: method → :func:`benchmarks.days.balancer_evaluation.score`, for the headings.
        windows: time windows of the request mix, drawn as bands.
        limit: latency limit in seconds; ``None``: there is none.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    heights = [0.6, *[1.6, 1.0] * len(clusters), *([1.2] if limit is not None else [])]
    n, rows = len(runs), len(heights)
    drawing = new_figure(figsize=(1.2 + 4.4 * n, 2.0 + 2.8 * len(clusters) + (1.3 if limit is not None else 0.0)))
    drawing.suptitle(title, x=0.01, ha="left", fontsize=12)
    axes = drawing.subplots(rows, n, sharex=True, sharey="row", squeeze=False, height_ratios=heights)
    tops = [_top(runs.values(), c) for c in clusters]
    for column, (name, minutes) in zip(axes.T, runs.items(), strict=True):
        hours = minutes["minute"].to_numpy() / 60
        column[0].fill_between(hours, minutes["qps"], color=TRAFFIC, linewidth=0)
        column[0].set_ylim(bottom=0)
        column[0].set_title(_heading(name, scores), fontsize=10, loc="left")
        for g, cluster in enumerate(clusters):
            _load(column[1 + 2 * g], hours, minutes, cluster, tops[g])
            column[2 + 2 * g].plot(hours, minutes[f"price_{cluster}"], color=PRICE, linewidth=0.9)
            column[2 + 2 * g].set_yscale("symlog", linthresh=1.0)
        if limit is not None:
            draw_latency(column[-1], minutes, limit, color=LINE, linewidth=0.7)
        column[-1].set_xlabel("hours since the start")
        for axis in column:
            shade_windows(axis, windows, len(minutes))
    axes[0, 0].set_ylabel("requests/s")
    for g, cluster in enumerate(clusters):
        axes[1 + 2 * g, 0].set_ylabel(f"{cluster}\nload / budget")
        axes[2 + 2 * g, 0].set_ylabel(PRICE_LABEL, fontsize=8)
        axes[2 + 2 * g, 0].set_ylim(bottom=0)  # shared by the row, so only once all is drawn
    if limit is not None:
        axes[-1, 0].set_ylabel(LATENCY_LABEL)
    for axis in axes.ravel():
        open_axes(axis)
        axis.margins(x=0)
    if windows is not None:
        drawing.supxlabel(NOTE, fontsize=9, x=0.01, ha="left", color=GREY)
    save_figure(drawing, path)


def _top(runs: Any, cluster: str) -> float:
    """Return the highest load to show, in budgets; the worst two in a thousand minutes are above it."""
    highest = [float(np.quantile(m[f"load_{cluster}"] / m[f"budget_{cluster}"], 0.998)) for m in runs]
    return float(np.clip(1.05 * max(highest), 1.15, 2.5))


def _load(axis: Any, hours: np.ndarray, minutes: pd.DataFrame, cluster: str, top: float) -> None:
    """Draw the used part of the budget, and the load above it."""
    load = (minutes[f"load_{cluster}"] / minutes[f"budget_{cluster}"]).to_numpy()
    axis.fill_between(hours, np.minimum(load, 1.0), color=USED, linewidth=0)
    axis.fill_between(hours, 1.0, np.maximum(load, 1.0), color=OVER, linewidth=0.4, edgecolor=OVER)
    axis.plot(hours, load, color=LINE, linewidth=0.5)
    axis.axhline(1.0, color="black", linewidth=0.9, linestyle="--")
    axis.set_ylim(0, top)
    mark_cut_off(axis, hours, load, top)


def _heading(name: str, scores: Mapping[str, Mapping[str, Any]] | None) -> str:
    if scores is None or name not in scores:
        return name
    score = scores[name]
    return f"{name}: μ {score['mu']['all']:.1%}, ν {score['nu']['all']:.2%}"


def sweep_figure(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Draw over-utilisation against utilisation for every combination of settings.

    Args:
        rows: ``settings`` and the means ``mu`` and ``nu`` of each combination.
        title: title of the figure.
        path: PNG file to write.
    """
    names = [n for n in rows[0]["settings"] if len({str(r["settings"][n]) for r in rows}) > 1] or list(
        rows[0]["settings"]
    )
    drawing = new_figure(figsize=(4.6 * len(names), 4.0))
    axes = drawing.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        values = sorted({r["settings"][name] for r in rows}, key=lambda v: (str(type(v)), v))
        for k, value in enumerate(values):
            points = [(r["nu"], r["mu"]) for r in rows if r["settings"][name] == value]
            x, y = 100 * np.array(points).T
            axis.scatter(x, y, color=CYCLE[k % len(CYCLE)], label=f"{name} = {value}", s=26)
        axis.legend(frameon=False, fontsize=8)
        axis.set_xlabel("over-utilisation ν, %")
        open_axes(axis)
    axes[0].set_ylabel("utilisation μ, %")
    drawing.suptitle(title, x=0.01, ha="left", fontsize=11)
    save_figure(drawing, path)
