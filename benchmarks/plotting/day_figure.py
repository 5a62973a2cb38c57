"""The figure of a simulated day: traffic, load against budget, prices, and revenue over the static rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.plotting.style import (
    LATENCY_LABEL,
    METHOD_COLOURS,
    PRICE_LABEL,
    TRAFFIC,
    draw_latency,
    legend_below,
    mark_cut_off,
    new_figure,
    open_axes,
    save_figure,
)
from benchmarks.plotting.time_windows import NOTE, TimeWindows, shade_windows
from marca_env.scenario.scenario import Cluster, Scenario

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Groups = list[tuple[Any, pd.DataFrame]]
"""Policies with their minutes."""
_HIGHEST_LOAD = 2.0  # budgets


def day_figure(minutes: pd.DataFrame, scenario: Scenario, title: str, path: Path, first_minute: int = 0) -> None:
    """Draw the first seed of every policy as PNG: traffic, then load and λ of each cluster, then revenue.

    With a latency limit a panel of the latency comes before the revenue.

    Args:
        minutes: rows of ``minutes.csv``.
        scenario: its clusters and time windows.
        title: title of the figure.
        path: file to write.
        first_minute: minute of the day of the first row.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    shown = minutes[minutes["seed"] == minutes["seed"].iloc[0]]
    groups = list(shown.groupby("policy", sort=False))
    clusters, windows = scenario.clusters, TimeWindows.of(scenario, first_minute)
    limit = scenario.latency.limit if scenario.latency is not None and "latency_p99" in minutes else None
    figure = new_figure(figsize=(11, 4.2 + 3.1 * len(clusters) + (1.8 if limit is not None else 0.0)))
    heights = [1.2, *[2.0, 1.2] * len(clusters), *([1.6] if limit is not None else []), 2.0]
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    first = groups[0][1]
    hours = first["minute"].to_numpy() / 60
    axes[0].fill_between(hours, first["qps"], color=TRAFFIC)
    axes[0].set_ylabel("requests\nper second")
    axes[0].set_ylim(bottom=0)
    axes[0].set_title(title, loc="left", fontsize=12)
    for g, cluster in enumerate(clusters):
        _load(axes[1 + 2 * g], groups, cluster)
        _price(axes[2 + 2 * g], _priced(groups, scenario), cluster)
    if limit is not None:
        for name, rows in groups:
            draw_latency(axes[-2], rows, limit, **_style(name))
        axes[-2].set_ylabel(LATENCY_LABEL)
    _revenue(axes[-1], groups, hours)
    for axis in axes:
        shade_windows(axis, windows, len(first))
        open_axes(axis)
        axis.margins(x=0)
    legend_below(figure, axes[1], note=None if windows is None else NOTE)
    save_figure(figure, path)


def _priced(groups: Groups, scenario: Scenario) -> Groups:
    """Return the policies that put a price on computation."""
    names = [f"price_{cluster.name}" for cluster in scenario.clusters]
    return [(name, rows) for name, rows in groups if rows[names].to_numpy().any()]


def _load(axis: Axes, groups: Groups, cluster: Cluster) -> None:
    """Draw the load of every policy as a share of the budget, up to twice the budget."""
    axis.axhline(1.0, color="black", linewidth=1, linestyle="--")
    axis.set_ylabel(f"{cluster.name}\nload / budget")
    loads = {name: rows[f"load_{cluster.name}"].to_numpy() / cluster.budget for name, rows in groups}
    for name, rows in groups:
        axis.plot(rows["minute"] / 60, loads[name], **_style(name))
    axis.set_ylim(0, min(_HIGHEST_LOAD, axis.get_ylim()[1]))
    highest = np.max(list(loads.values()), axis=0)
    mark_cut_off(axis, groups[0][1]["minute"].to_numpy() / 60, highest, axis.get_ylim()[1])


def _price(axis: Axes, groups: Groups, cluster: Cluster) -> None:
    """Draw λ of a cluster under every policy that has prices."""
    for name, rows in groups:
        axis.plot(rows["minute"] / 60, rows[f"price_{cluster.name}"], **_style(name))
    axis.set_ylabel(f"{cluster.name}\n{PRICE_LABEL}", fontsize=8)
    axis.set_yscale("symlog", linthresh=0.1)
    axis.set_ylim(bottom=-0.01)


def _style(name: str) -> dict[str, Any]:
    """Return the line style of a policy."""
    return {"color": METHOD_COLOURS.get(name), "label": name, "linewidth": 1.6 if name == "marca-mpc" else 1.0}


def _revenue(axis: Axes, groups: Groups, hours: np.ndarray) -> None:
    """Draw the cumulative revenue, minus that of the static rule if it ran."""
    base = next((rows["revenue"].to_numpy() for name, rows in groups if name == "static"), None)
    for name, rows in groups:
        total = np.cumsum(rows["revenue"].to_numpy() - (0.0 if base is None else base))
        axis.plot(hours, total, **_style(name))
    axis.set_ylabel("cumulative revenue" + ("" if base is None else "\nover static") + ",\ncurrency")
    axis.set_xlabel("hours since the start")
