"""The figure of a latency check: predicted against measured quantiles of held-out joint actions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks.plotting.style import new_figure, open_axes, save_figure
from marca_env.testbench.latency_check import SHARES


def latency_figure(compared: pd.DataFrame, path: Path) -> None:
    """Draw predicted over measured service times as PNG, a panel for each quantile and a colour for each cluster.

    Args:
        compared: what :func:`marca_env.testbench.latency_check.compare_joint_actions` returned.
        path: file to write.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    figure = new_figure(figsize=(8.5, 4.2))
    for axis, name in zip(figure.subplots(1, len(SHARES)), SHARES, strict=True):
        both = compared[[name, f"predicted_{name}"]].to_numpy()
        for cluster, rows in compared.groupby("cluster", sort=False):
            axis.plot(1e3 * rows[name], 1e3 * rows[f"predicted_{name}"], "o", markersize=4, label=cluster)
        ends = [1e3 * both.min() / 1.2, 1e3 * both.max() * 1.2]
        axis.plot(ends, ends, color="black", linewidth=1, linestyle="--")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(f"measured {name}, ms")
        axis.set_ylabel(f"predicted {name}, ms")
        open_axes(axis)
    axis.legend(frameon=False)
    save_figure(figure, path)
