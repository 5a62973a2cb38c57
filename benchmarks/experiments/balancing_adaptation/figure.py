"""Figure of a changing system: load against budget of each cluster, prices λ below, the change marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.plotting.style import METHOD_COLOURS, legend_below, new_figure, open_axes, save_figure


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
    rows = len(clusters) + 1
    figure = new_figure(figsize=(6.2 * len(shown), 2.2 * rows + 0.8))
    grid = figure.subplots(rows, len(shown), sharex=True, squeeze=False)
    for column, (title, methods) in zip(grid.T, shown.items(), strict=True):
        column[0].set_title(title, loc="left", fontsize=11)
        for g, axis in enumerate(column[:-1]):
            axis.axhline(1.0, color="black", linewidth=1, linestyle="--")
            axis.set_ylabel(f"{clusters[g]}\nload / budget")
        for name, trace in methods.items():
            minutes = np.arange(len(trace["load"])) - change
            style = {"color": METHOD_COLOURS.get(name), "label": name, "linewidth": 1.2}
            for g, axis in enumerate(column[:-1]):
                axis.plot(minutes, trace["load"][:, g], **style)
                axis.set_ylim(0.5, 1.6)
            column[-1].plot(minutes, trace["prices"][:, -1], **style)
        column[-1].set_ylabel(f"λ {clusters[-1]}\nper core-second")
        column[-1].set_yscale("symlog", linthresh=0.1)
        column[-1].set_xlabel("minutes since the change")
        for axis in column:
            axis.axvline(0, color="#8a8a8a", linewidth=1)
            open_axes(axis)
            axis.margins(x=0)
    legend_below(figure, grid[0, 0])
    save_figure(figure, path)
