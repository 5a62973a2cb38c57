"""Learning curves and performance profiles over several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluation.statistics import mean_interval, performance_profile
from benchmarks.plotting.style import METHOD_COLOURS, legend_below, line_style, new_figure, open_axes, save_figure

PANELS = 3
"""Panels in a row of a figure."""
LABELS = {"QMIX": "QMIX", "VDN": "VDN", "IQL": "independent DQN", "random": "random policy"}


def curve(runs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Align the evaluations of several seeds at the same steps.

    Where episodes end early, runs are evaluated at different steps, and runs that learn faster more often. Returns are
    then interpolated linearly at evenly spaced steps, as many as the run with the fewest evaluations has. The last
    return of a run does not change.

    Args:
        runs: for each seed, rows of ``env_steps``, ``return`` and ``seconds``.

    Returns:
        ``env_steps`` (E,), ``returns`` (seeds, E), ``seconds`` and ``cpu_seconds`` of each run (seeds,), and ``clock``
        (E,), the mean seconds at which the runs had reached each step.
    """
    taken = [[row["env_steps"] for row in rows] for rows in runs]
    least = min(map(len, taken))
    steps = np.linspace(max(t[0] for t in taken), max(t[-1] for t in taken), least)
    returns, clocks = (
        [np.interp(steps, t, [row[name] for row in rows]) for t, rows in zip(taken, runs, strict=True)]
        for name in ("return", "seconds")
    )
    return {
        "env_steps": steps.tolist(),
        "returns": [values.tolist() for values in returns],
        "seconds": [rows[-1]["seconds"] for rows in runs],
        "cpu_seconds": [rows[-1].get("cpu_seconds", float("nan")) for rows in runs],
        "clock": np.mean(clocks, axis=0).tolist(),
    }


def band(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Student's 95 % interval of the mean over seeds: ``returns`` (seeds, E) → (E,), (E,); nan for one seed."""
    low, high = np.array([mean_interval(values) for values in returns.T]).T
    return low, high


def figure(curves: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], path: Path) -> None:
    """Draw the mean return with its :func:`band` over seeds against environment steps, a panel per task.

    Args:
        curves: task → algorithm → result of :func:`curve`; ``random``, and a result marked ``constant``, is a
            horizontal line.
        titles: task → title of its panel.
        path: PNG file to write.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    columns = min(len(curves), PANELS)
    rows = -(-len(curves) // columns)
    drawing = new_figure(figsize=(5.2 * columns, 4.0 * rows))
    axes = np.ravel(drawing.subplots(rows, columns))
    for unused in axes[len(curves) :]:
        unused.set_axis_off()
    for axis, (name, of_task) in zip(axes, curves.items(), strict=False):
        for algorithm, line in of_task.items():
            returns = np.asarray(line["returns"])
            colour, label = METHOD_COLOURS.get(algorithm), LABELS.get(algorithm, algorithm)
            if algorithm == "random" or line.get("constant"):
                axis.axhline(returns.mean(), color=colour, linestyle="--", linewidth=1.4, label=label)
                continue
            steps = np.asarray(line["env_steps"]) / 1000
            axis.plot(steps, returns.mean(0), color=colour, linewidth=1.8, label=label)
            axis.fill_between(steps, *band(returns), color=colour, alpha=0.18, linewidth=0)
        axis.set_title(titles[name], loc="left", fontsize=11)
        axis.set_xlabel("environment steps (thousands)")
        axis.set_ylabel(f"greedy return\n(mean and 95 % interval, {len(returns)} seeds)")
        open_axes(axis)
        axis.margins(x=0.01)
        axis.set_xlim(left=0)
    legend_below(drawing, axis)
    save_figure(drawing, path)


def clocks_figure(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], levels: Mapping[str, float], path: Path
) -> None:
    """Draw the mean return over seeds, with its :func:`band`, against environment steps and against seconds.

    Args:
        runs: algorithm → runs, each a list of rows with ``env_steps``, ``return`` and ``seconds``.
        levels: method that does not learn → its return, a horizontal line.
        path: PNG file to write.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    drawing = new_figure(figsize=(11, 5.2))
    axes = drawing.subplots(1, 2, sharey=True)
    clocks = {"env_steps": "environment steps (thousands)", "clock": "seconds of training (mean of the runs)"}
    for axis, (clock, label) in zip(axes, clocks.items(), strict=True):
        for k, (name, of_seeds) in enumerate(runs.items()):
            line = curve(of_seeds)
            at = np.asarray(line[clock]) / (1000 if clock == "env_steps" else 1)
            returns, style = np.asarray(line["returns"]), line_style(k)
            axis.plot(at, returns.mean(0), **style, label=name)
            axis.fill_between(at, *band(returns), color=style["color"], alpha=0.12, linewidth=0)
        for name, level in levels.items():
            axis.axhline(level, color="black", linestyle=":", linewidth=1.0)
            axis.annotate(name, (1.0, level), xycoords=axis.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
        axis.set_xlabel(label)
        open_axes(axis)
    axes[0].set_ylabel("greedy return, currency per request\n(mean and 95 % interval over seeds)")
    axes[1].set_xscale("log")
    axes[1].xaxis.set_major_formatter("{x:g}")
    legend_below(drawing, axes[0], columns=5)
    save_figure(drawing, path)


def score_curves_figure(curves: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path) -> Path:
    """Draw the mean score over seeds, with its :func:`band`, against environment steps, a panel for each task.

    Args:
        curves: task → method → ``env_steps`` (E,) and ``returns`` (seeds, E), scaled so that 0 is the best static
            action and 1 the bound.
        path: PNG file to write.

    Returns:
        ``path``.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    methods = list(dict.fromkeys(method for of_task in curves.values() for method in of_task))
    columns = min(len(curves), PANELS)
    rows = -(-len(curves) // columns)
    drawing = new_figure(figsize=(5.0 * columns, 3.8 * rows + 0.8))
    axes = np.ravel(drawing.subplots(rows, columns))
    handles: dict[str, Any] = {}
    for axis, (task, of_task) in zip(axes, curves.items(), strict=False):
        for method, line in of_task.items():
            scores, style = np.asarray(line["returns"]), line_style(methods.index(method))
            steps = np.asarray(line["env_steps"]) / 1000
            (handles[method],) = axis.plot(steps, scores.mean(0), **style)
            axis.fill_between(steps, *band(scores), color=style["color"], alpha=0.10, linewidth=0)
        for level in (0.0, 1.0):
            axis.axhline(level, color="black", linestyle=":", linewidth=1.0)
        best = max(float(np.mean(line["returns"], axis=0).max()) for line in of_task.values())
        axis.set_ylim(-1.0, max(1.0, best) + 0.1)
        axis.set_title(task, loc="left", fontsize=11)
        axis.set_xlabel("environment steps (thousands)")
        open_axes(axis)
    for unused in axes[len(curves) :]:
        unused.set_axis_off()
    axes[0].set_ylabel("score (0 best static action, 1 bound)")
    drawing.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=min(7, len(handles)), frameon=False
    )
    save_figure(drawing, path)
    return path


def profile_figure(scores: Mapping[str, np.ndarray], label: str, path: Path) -> Path:
    """Draw performance profiles: the share of runs above each score, with its 95 % bootstrap band.

    Args:
        scores: method → (runs, tasks), normalised so that tasks compare.
        label: name of the score.
        path: PNG file to write.

    Returns:
        ``path``.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    all_scores = np.concatenate([np.ravel(values) for values in scores.values()])
    low, high = all_scores.min(), all_scores.max()
    margin = 0.04 * (high - low) or 0.01  # if all scores are equal, the step must still be visible
    thresholds = np.linspace(low - margin, high + margin, 201)
    drawing = new_figure(figsize=(6.5, 4.4))
    axis = drawing.subplots()
    for k, (name, values) in enumerate(scores.items()):
        share, below, above = performance_profile(values, thresholds)
        style = line_style(k)
        axis.step(thresholds, share, **style, label=name)
        axis.fill_between(thresholds, below, above, step="pre", color=style["color"], alpha=0.10, linewidth=0)
    axis.set_title("runs that score higher than …; 95 % bands", loc="left", fontsize=9)
    axis.set_xlabel(label)
    axis.set_ylabel("share of runs")
    axis.margins(x=0)
    open_axes(axis)
    drawing.legend(loc="outside lower center", ncols=min(4, len(scores)), frameon=False, fontsize=8)
    save_figure(drawing, path)
    return path
