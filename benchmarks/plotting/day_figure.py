"""The figure of a simulated day: traffic, load against budget, prices, and revenue over the static rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.plotting.style import blank
from marca_env.scenario.scenario import Scenario

COLOURS = {
    "static": "#8a8a8a",
    "dcaf": "#c98a1b",
    "rl-mpca": "#6f4fa0",
    "marca-feedback": "#2f7fb8",
    "marca-mpc": "#c2333b",
}


def day_figure(minutes: pd.DataFrame, scenario: Scenario, title: str, path: Path) -> None:
    """Draw the first seed of every policy in ``minutes`` (rows of ``minutes.csv``) to ``path`` (PNG).

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    shown = minutes[minutes["seed"] == minutes["seed"].iloc[0]]
    groups = list(shown.groupby("policy", sort=False))
    clusters = scenario.clusters
    figure = blank(figsize=(11, 3.0 + 2.1 * (len(clusters) + 2)))
    axes = figure.subplots(len(clusters) + 3, 1, sharex=True, height_ratios=[1.2, *[2.0] * len(clusters), 1.6, 2.0])
    traffic, loads, price, revenue = axes[0], axes[1:-2], axes[-2], axes[-1]
    first = groups[0][1]
    hours = first["minute"] / 60
    traffic.fill_between(hours, first["qps"], color="#d9dde2")
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
            total = rows[f"price_{clusters[-1].name}"]
            price.plot(rows["minute"] / 60, total, **_style(name))
    price.set_ylabel(f"λ {clusters[-1].name}\nper core-second")
    price.set_yscale("symlog", linthresh=0.1)
    price.set_ylim(bottom=-0.01)
    _revenue(revenue, groups, hours)
    handles, labels = loads[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _style(name: str) -> dict[str, object]:
    return {"color": COLOURS.get(name), "label": name, "linewidth": 1.6 if name == "marca-mpc" else 1.0}


def _revenue(axis, groups: list, hours: pd.Series) -> None:  # type: ignore[no-untyped-def]
    """Cumulative revenue, over that of the static rule where it ran."""
    base = next((rows["revenue"].to_numpy() for name, rows in groups if name == "static"), None)
    for name, rows in groups:
        total = np.cumsum(rows["revenue"].to_numpy() - (0.0 if base is None else base))
        axis.plot(hours, total, **_style(name))
    axis.set_ylabel("cumulative revenue" + ("" if base is None else "\nover static"))
    axis.set_xlabel("hours since the start")
