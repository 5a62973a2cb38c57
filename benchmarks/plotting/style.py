"""The style of all figures: empty figures, colours, axes without a box, and saving as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marca_env.utils.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RED, BLUE, OCHRE, PURPLE, GREEN, GREY = "#c2333b", "#2f7fb8", "#c98a1b", "#6f4fa0", "#3c8d5a", "#8a8a8a"
CYCLE = (BLUE, OCHRE, RED, PURPLE, GREEN, GREY)
"""Colours of lines without a fixed colour."""
TRAFFIC = "#d9dde2"
"""Colour of areas that show traffic."""
METHOD_COLOURS = {
    "QMIX": RED,
    "VDN": BLUE,
    "IQL": OCHRE,
    "random": "#6b6b6b",
    "PPO": PURPLE,
    "SAC": GREEN,
    "static": GREY,
    "dcaf": OCHRE,
    "rl-mpca": PURPLE,
    "marca-feedback": BLUE,
    "marca-mpc": RED,
    "feedback": BLUE,
    "MPC": RED,
    "MPC, adaptive": GREEN,
    "MPC, told": OCHRE,
}
"""Name of a learner, policy or balancer → its colour in every figure."""
DPI = 110
PRICE_LABEL = "λ, currency\nper core-second"
"""Label of axes of prices."""
LATENCY_LABEL = "p99 of latency,\nms"
"""Label of axes of latency."""


def new_figure(**options: Any) -> Figure:
    """Return an empty figure outside pyplot, so that there is no global state and no window opens.

    Args:
        options: options of ``matplotlib.figure.Figure``, such as ``figsize`` in inches.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("figures need matplotlib: pip install 'marca-env[bench]'") from None
    return Figure(layout="constrained", **options)


def line_style(k: int) -> dict[str, Any]:
    """Return the style of the k-th of many lines; beyond ten colours they are dashed."""
    return {"color": f"C{k % 10}", "linestyle": ("-", "--")[k // 10 % 2], "linewidth": 1.6}


def open_axes(axis: Axes) -> None:
    """Remove the lines above and to the right of the axes."""
    axis.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, axis: Axes, columns: int | None = None, note: str | None = None) -> None:
    """Put the legend of one axis below the figure.

    Args:
        figure: the figure.
        axis: its axes with the entries.
        columns: columns of the legend; ``None``: one for each entry.
        note: text above the entries.
    """
    handles, labels = axis.get_legend_handles_labels()
    options: dict[str, Any] = {"ncols": columns or len(labels), "frameon": False, "title": note, "title_fontsize": 9}
    figure.legend(handles, labels, loc="outside lower center", **options)


def mark_cut_off(axis: Axes, x: np.ndarray, y: np.ndarray, top: float) -> None:
    """Mark the values above the end of an axis by triangles at its edge, and write the highest.

    Args:
        axis: the axes.
        x: (n,) places.
        y: (n,) values.
        top: end of the axis.
    """
    above = np.flatnonzero(y > top)
    if len(above) == 0:
        return
    axis.plot(x[above], np.full(len(above), top), "^", color=RED, markersize=4, clip_on=False, linestyle="none")
    worst = above[int(y[above].argmax())]
    is_late = x[worst] > np.quantile(x, 0.85)
    offset, side = ((-5, -2), "right") if is_late else ((5, -2), "left")
    options: dict[str, Any] = {
        "xytext": offset,
        "textcoords": "offset points",
        "ha": side,
        "va": "top",
        "fontsize": 7,
        "color": RED,
    }
    axis.annotate(f"up to {y[worst]:.2g}", (x[worst], top), **options)


def draw_latency(axis: Axes, minutes: pd.DataFrame, limit: float, **style: Any) -> None:
    """Draw the 99 % quantile of the latency over the hours, and the limit as a dashed line.

    Args:
        axis: where to draw.
        minutes: rows of :func:`marca_env.traffic.day_simulator.replay`.
        limit: seconds.
        style: style of the line.
    """
    axis.axhline(1e3 * limit, color="black", linewidth=1, linestyle="--")
    axis.plot(minutes["minute"] / 60, 1e3 * minutes["latency_p99"], **style)
    axis.set_yscale("log")


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as PNG; missing folders are made."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
