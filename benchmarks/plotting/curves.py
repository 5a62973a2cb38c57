"""Learning curves over several seeds: aligned, with bands, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluation.statistics import mean_interval, performance_profile
from benchmarks.plotting.style import blank

LABELS = {"QMIX": "QMIX", "VDN": "VDN", "IQL": "independent DQN", "random": "random policy"}
COLOURS = {
    "QMIX": "#c2333b",
    "VDN": "#2f7fb8",
    "IQL": "#c98a1b",
    "random": "#6b6b6b",
    "PPO": "#6f4fa0",
    "SAC": "#3c8d5a",
    "feedback": "#2f7fb8",
    "MPC": "#c2333b",
}


def curve(runs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Evaluations of several seeds at the same steps: ``env_steps`` (E,), ``returns`` (seeds, E), ``seconds`` (seeds,).

    Where episodes may end early, runs are evaluated at different steps, and those that learn faster more often: their
    returns are interpolated linearly at as many evenly spaced steps as the run with the fewest evaluations has. The
    last ones stay what they are. ``clock`` (E,) are the seconds at which the runs were there, in the mean.
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
        "clock": np.mean(clocks, axis=0).tolist(),
    }


def band(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's 95 % interval of the mean over seeds; ``returns`` (seeds, E) → two of (E,); nan of one seed."""
    low, high = np.array([mean_interval(values) for values in returns.T]).T
    return low, high


def figure(curves: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], path: Path) -> None:
    """Mean return with its :func:`band` over seeds against environment steps, a panel per task; PNG.

    Args:
        curves: task → algorithm → what :func:`curve` returns; ``random``, and what is ``constant``, is
            drawn as a line across.
        titles: of the tasks.
        path: of the figure.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    drawing = blank(figsize=(5.2 * len(curves), 4.0))
    for axis, (name, found) in zip(np.ravel(drawing.subplots(1, len(curves))), curves.items(), strict=True):
        for algorithm, line in found.items():
            returns = np.asarray(line["returns"])
            colour, label = COLOURS.get(algorithm), LABELS.get(algorithm, algorithm)
            if algorithm == "random" or line.get("constant"):
                axis.axhline(returns.mean(), color=colour, linestyle="--", linewidth=1.4, label=label)
                continue
            steps = np.asarray(line["env_steps"]) / 1000
            axis.plot(steps, returns.mean(0), color=colour, linewidth=1.8, label=label)
            axis.fill_between(steps, *band(returns), color=colour, alpha=0.18, linewidth=0)
        axis.set_title(titles[name], loc="left", fontsize=11)
        axis.set_xlabel("environment steps (thousands)")
        axis.set_ylabel(f"greedy return\n(mean and 95 % interval, {len(returns)} seeds)")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.01)
        axis.set_xlim(left=0)
    handles, labels = axis.get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=110)


def _style(k: int) -> dict[str, Any]:
    """Of the k-th of many lines: beyond ten colours they are dashed."""
    return {"color": f"C{k % 10}", "linestyle": ("-", "--")[k // 10 % 2], "linewidth": 1.6}


def clocks_figure(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], levels: Mapping[str, float], path: Path
) -> None:
    """Mean return over seeds, with its :func:`band`, against environment steps and against seconds; PNG.

    Args:
        runs: algorithm → runs, as for :func:`curve`.
        levels: what stands beside them and does not learn → its return, a line across.
        path: of the figure.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    drawing = blank(figsize=(11, 5.2))
    axes = drawing.subplots(1, 2, sharey=True)
    clocks = {"env_steps": "environment steps (thousands)", "clock": "seconds of training (mean of the runs)"}
    for axis, (clock, label) in zip(axes, clocks.items(), strict=True):
        for k, (name, of_seeds) in enumerate(runs.items()):
            line = curve(of_seeds)
            at = np.asarray(line[clock]) / (1000 if clock == "env_steps" else 1)
            returns, style = np.asarray(line["returns"]), _style(k)
            axis.plot(at, returns.mean(0), **style, label=name)
            axis.fill_between(at, *band(returns), color=style["color"], alpha=0.12, linewidth=0)
        for name, level in levels.items():
            axis.axhline(level, color="black", linestyle=":", linewidth=1.0)
            axis.annotate(name, (1.0, level), xycoords=axis.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("greedy return (mean and 95 % interval over seeds)")
    axes[1].set_xscale("log")
    axes[1].xaxis.set_major_formatter("{x:g}")
    handles, labels = axes[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=110)


def profile_figure(scores: Mapping[str, np.ndarray], label: str, path: Path) -> Path:
    """Performance profiles: share of runs above each score, with its 95 % bootstrap band; PNG.

    Args:
        scores: method → (runs, tasks), normalised so that tasks compare.
        label: of the score.
        path: of the figure.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """

    every = np.concatenate([np.ravel(values) for values in scores.values()])
    low, high = every.min(), every.max()
    margin = 0.04 * (high - low) or 0.01  # all alike: a step is seen all the same
    thresholds = np.linspace(low - margin, high + margin, 201)
    drawing = blank(figsize=(6.5, 4.4))
    axis = drawing.subplots()
    for k, (name, values) in enumerate(scores.items()):
        share, below, above = performance_profile(values, thresholds)
        style = _style(k)
        axis.step(thresholds, share, **style, label=name)
        axis.fill_between(thresholds, below, above, step="pre", color=style["color"], alpha=0.10, linewidth=0)
    axis.set_title("runs that score higher than …; 95 % bands", loc="left", fontsize=9)
    axis.set_xlabel(label)
    axis.set_ylabel("share of runs")
    axis.margins(x=0)
    axis.spines[["top", "right"]].set_visible(False)
    drawing.legend(loc="outside lower center", ncols=min(4, len(scores)), frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=110)
    return path
