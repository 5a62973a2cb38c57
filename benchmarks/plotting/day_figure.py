"""The figure of a simulated day: traffic, load against budget, prices, and revenue over the static rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.plotting.style import METHOD_COLOURS, TRAFFIC, legend_below, new_figure, open_axes, save_figure
from marca_env.scenario.scenario import Scenario

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def day_figure(minutes: pd.DataFrame, scenario: Scenario, title: str, path: Path) -> None:
    """Draw the first seed of every policy in ``minutes`` (rows of ``minutes.csv``) and write it to ``path`` (PNG).

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    shown = minutes[minutes["seed"] == minutes["seed"].iloc[0]]
    groups = list(shown.groupby("policy", sort=False))
    clusters = scenario.clusters
    figure = new_figure(figsize=(11, 3.0 + 2.1 * (len(clusters) + 2)))
    axes = figure.subplots(len(clusters) + 3, 1, sharex=True, height_ratios=[1.2, *[2.0] * len(clusters), 1.6, 2.0])
    traffic, loads, price, revenue = axes[0], axes[1:-2], axes[-2], axes[-1]
    first = groups[0][1]
    hours = first["minute"] / 60
    traffic.fill_between(hours, first["qps"], color=TRAFFIC)
    traffic.set_ylabel("requests\nper second")
    traffic.set_ylim(bottom=0)
    traffic.set_title(title, loc="left", fontsize=12)
    for axis, cluster in zip(loads, clusters, strict=True):
        axis.axhline(1.0, color="black", linewidth=1, linestyle="--")
        axis.set_ylabel(f"{cluster.name}\nload / budget")
        for name, rows in groups:
            axis.plot(rows["minute"] / 60, rows[f"load_{cluster.name}"] / cluster.budget, **_style(name))
        axis.set_ylim(0, min(2.0, axis.get_ylim()[1]))
    for name, rows in groups:
        if rows[[f"price_{c.name}" for c in clusters]].to_numpy().any():
            last_price = rows[f"price_{clusters[-1].name}"]
            price.plot(rows["minute"] / 60, last_price, **_style(name))
    price.set_ylabel(f"λ {clusters[-1].name}\nper core-second")
    price.set_yscale("symlog", linthresh=0.1)
    price.set_ylim(bottom=-0.01)
    _revenue(revenue, groups, hours)
    legend_below(figure, loads[0])
    for axis in axes:
        open_axes(axis)
        axis.margins(x=0)
    save_figure(figure, path)


def _style(name: str) -> dict[str, Any]:
    """Return the line style of a policy."""
    return {"color": METHOD_COLOURS.get(name), "label": name, "linewidth": 1.6 if name == "marca-mpc" else 1.0}


def _revenue(axis: Axes, groups: list[tuple[Any, pd.DataFrame]], hours: pd.Series) -> None:
    """Draw the cumulative revenue, minus that of the static rule if it ran."""
    base = next((rows["revenue"].to_numpy() for name, rows in groups if name == "static"), None)
    for name, rows in groups:
        total = np.cumsum(rows["revenue"].to_numpy() - (0.0 if base is None else base))
        axis.plot(hours, total, **_style(name))
    axis.set_ylabel("cumulative revenue" + ("" if base is None else "\nover static"))
    axis.set_xlabel("hours since the start")
