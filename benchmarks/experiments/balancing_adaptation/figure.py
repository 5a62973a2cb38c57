"""Figure of a changing system: load against budget of each cluster, prices λ below, the change marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.plotting.style import (
    METHOD_COLOURS,
    PRICE_LABEL,
    legend_below,
    mark_cut_off,
    new_figure,
    open_axes,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOADS = (0.5, 1.6)  # budgets


def adaptation_figure(
    shown: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], clusters: Sequence[str], change: int, path: Path
) -> None:
    """Draw a column per change, as PNG.

    Args:
        shown: change → method → ``load`` (T, G) as a fraction of the budget and ``prices`` (T, G).
        clusters: names of the clusters.
        change: minute of the change.
        path: of the figure.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    figure = new_figure(figsize=(6.2 * len(shown), 3.6 * len(clusters) + 0.8))
    heights = [1.5, 1.0] * len(clusters)
    grid = figure.subplots(len(heights), len(shown), sharex=True, squeeze=False, height_ratios=heights)
    for column, (title, methods) in zip(grid.T, shown.items(), strict=True):
        column[0].set_title(title, loc="left", fontsize=11)
        for g, cluster in enumerate(clusters):
            _draw_cluster(column[2 * g], column[2 * g + 1], methods, g, change)
            column[2 * g].set_ylabel(f"{cluster}\nload / budget")
            column[2 * g + 1].set_ylabel(f"{cluster}\n{PRICE_LABEL}", fontsize=8)
        column[-1].set_xlabel("minutes since the change")
        for axis in column:
            axis.axvline(0, color="#8a8a8a", linewidth=1)
            open_axes(axis)
            axis.margins(x=0)
    legend_below(figure, grid[0, 0])
    save_figure(figure, path)


def _draw_cluster(
    load: Axes, price: Axes, methods: Mapping[str, Mapping[str, np.ndarray]], g: int, change: int
) -> None:
    """Draw load and λ of cluster ``g`` under every method."""
    load.axhline(1.0, color="black", linewidth=1, linestyle="--")
    load.set_ylim(*_LOADS)
    highest = np.max([trace["load"][:, g] for trace in methods.values()], axis=0)
    mark_cut_off(load, np.arange(len(highest)) - change, highest, _LOADS[1])
    for name, trace in methods.items():
        minutes = np.arange(len(trace["load"])) - change
        style: dict[str, Any] = {"color": METHOD_COLOURS.get(name), "label": name, "linewidth": 1.2}
        load.plot(minutes, trace["load"][:, g], **style)
        price.plot(minutes, trace["prices"][:, g], **style)
    price.set_yscale("symlog", linthresh=0.1)
