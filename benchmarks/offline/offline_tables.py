"""Tables and figures of the experiments that train from the log: ranking, ablation, sensitivity."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from benchmarks.evaluation.statistics import iqm, iqm_interval, paired_difference, probability_of_improvement
from benchmarks.offline.offline_runs import PER_ITERATION, convergence, gradient_variance
from benchmarks.plotting.style import BLUE, TRAFFIC, new_figure, open_axes, save_figure
from benchmarks.suite.api import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRUTHS = {"model": "by the ensemble", "cascade": "by the cascade"}
SCORES = {"spearman": ("r_s", 3), "return": ("Return%", 2)}
"""Score → its symbol, and its number of digits."""
CURVE_LABELS = {"spearman_model": "r_s by the ensemble,\nvalidation rows", "return_model": "Return%,\nvalidation rows"}
PANELS = 5
"""Methods side by side in a figure."""


def group_rows(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by method, and by task where there are several, in the order of the rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(" ".join(filter(None, (row.case.method, row.case.task))), []).append(row)
    return groups


def scores(rows: Sequence[Row], name: str) -> np.ndarray:
    """Return a score of finished runs by its name, such as ``spearman_model``, (runs,), without runs that lack it."""
    return np.array([r.numbers["test"][name] for r in rows if name in r.numbers["test"]], float)


def score_table(rows: Sequence[Row], title: str, label: str) -> Table:
    """Return the IQM (interquartile mean) over seeds with its 95 % bootstrap interval, for each method and task."""
    table = Table(title=f"{title}: interquartile mean over seeds [95 % interval]")
    table.add_column(label)
    table.add_column("seeds", justify="right")
    for truth in TRUTHS.values():
        for symbol, _ in SCORES.values():
            table.add_column(f"{symbol} {truth}", justify="right")
    for name, group in group_rows(rows).items():
        cells = [interval(scores(group, f"{s}_{t}"), digits) for t in TRUTHS for s, (_, digits) in SCORES.items()]
        table.add_row(name, str(len(group)), *cells)
    return table


def interval(values: np.ndarray, digits: int) -> str:
    """Return ``IQM [low, high]`` as text; a dash without values, and no numbers if a run has diverged."""
    if not len(values):
        return "–"
    if not np.isfinite(values).all():
        return f"diverged: {(~np.isfinite(values)).sum()} of {len(values)}"
    low, high = iqm_interval(values)
    mean = f"{iqm(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"


def curves_figure(rows: Sequence[Row], path: Path) -> Path:
    """Draw validation r_s and Return% against updates as PNG: a column per method, its mean and range over seeds.

    The means of the other methods are grey behind it, so that all compare.
    """
    groups = group_rows(rows)
    columns = min(PANELS, len(groups))
    blocks = -(-len(groups) // columns)
    drawing = new_figure(figsize=(1.0 + 2.3 * columns, 0.5 + 3.8 * blocks))
    axes = drawing.subplots(2 * blocks, columns, squeeze=False, sharex=True)
    shared = _without_common_words(list(groups))
    for number, name in enumerate(groups):
        block, column = divmod(number, columns)
        top, bottom = axes[2 * block, column], axes[2 * block + 1, column]
        top.set_title(textwrap.fill(shared[name], 26), loc="left", fontsize=9)
        for axis, score in ((top, "spearman_model"), (bottom, "return_model")):
            _draw_method(axis, groups, name, score)
            if column == 0:
                axis.set_ylabel(CURVE_LABELS[score], fontsize=9)
            else:
                axis.tick_params(labelleft=False)
        bottom.set_xlabel("updates", fontsize=9)
        bottom.tick_params(labelbottom=True)
    for unused in axes.reshape(blocks, 2, columns).swapaxes(1, 2).reshape(-1, 2)[len(groups) :]:
        for axis in unused:
            axis.set_axis_off()
    drawing.suptitle("mean and range over seeds; grey: the others", x=0.01, ha="left", fontsize=10)
    save_figure(drawing, path)
    return path


def _draw_method(axis: Axes, groups: Mapping[str, Sequence[Row]], name: str, score: str) -> None:
    """Draw a score of one method with its range over seeds, and the means of the others behind it."""
    lines = {other: np.array([[p[score] for p in r.numbers["curve"]] for r in g]) for other, g in groups.items()}
    updates = {other: [point["updates"] for point in g[0].numbers["curve"]] for other, g in groups.items()}
    for other, values in lines.items():
        if other != name:
            axis.plot(updates[other], values.mean(0), color=TRAFFIC, linewidth=0.9, zorder=1)
    marker = "o" if len(updates[name]) == 1 else None  # a line of one point would be invisible
    axis.plot(updates[name], lines[name].mean(0), color=BLUE, linewidth=1.7, marker=marker, zorder=3)
    axis.fill_between(updates[name], lines[name].min(0), lines[name].max(0), color=BLUE, alpha=0.18, linewidth=0)
    drawn = np.concatenate([values.mean(0) for values in lines.values()])
    low, high = np.percentile(drawn[np.isfinite(drawn)], [10, 100]) if np.isfinite(drawn).any() else (0.0, 0.0)
    if low < high:  # otherwise all are equal, or have diverged
        axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    open_axes(axis)
    axis.margins(x=0.01)


def _without_common_words(names: Sequence[str]) -> dict[str, str]:
    """Return the names without the words that all begin with."""
    words = [name.split() for name in names]
    common = next((k for k, same in enumerate(zip(*words, strict=False)) if len(set(same)) > 1), 0)
    return {name: " ".join(w[common:]) or name for name, w in zip(names, words, strict=True)}


def training_table(rows: Sequence[Row], window: int) -> Table:
    """Return convergence and the variance of the gradient's norm within windows of ``window`` reports.

    The variance is given also in units of the squared mean, which a change of scale does not alter.
    """
    title = f"convergence and gradients: variance within {window * PER_ITERATION} updates; interquartile mean [95 %]"
    table = Table(title=title)
    columns = (
        "updates to 95 % of Return%",
        "updates to 95 % of r_s",
        "variance of ‖∇‖",
        "mean ‖∇‖",
        "variance / mean²",
    )
    table.add_column("variant")
    for column in columns:
        table.add_column(column, justify="right")
    for name, group in group_rows(rows).items():
        runs = [r.numbers for r in group]
        steps = [
            np.array([convergence(run["curve"], of=of) for run in runs], float)
            for of in ("return_model", "spearman_model")
        ]
        variance = np.array([gradient_variance(run["grad_norm"], window) for run in runs])
        mean = np.array([np.mean(run["grad_norm"]) for run in runs])
        cells = [interval(s, 0) for s in steps]
        cells += [interval(variance, 4), interval(mean, 3), interval(variance / mean**2, 3)]
        table.add_row(name, *cells)
    return table


def difference_tables(rows: Sequence[Row], first: str) -> Iterator[Table]:
    """Yield a table that compares a method with each of the others; nothing if there is no other.

    It has the mean difference over common seeds with its interval, and the probability of improvement.
    """
    groups = group_rows(rows)
    if first not in groups or len(groups) < 2:
        return
    title = f"{first} minus the other, by the ensemble: mean difference [95 %]; P: probability that it scores higher"
    table = Table(title=title)
    table.add_column("method")
    for symbol, _ in SCORES.values():
        table.add_column(symbol, justify="right")
        table.add_column(f"P, {symbol}", justify="right")
    for name, group in groups.items():
        if name != first:
            cells = [_difference(groups[first], group, f"{s}_model", digits) for s, (_, digits) in SCORES.items()]
            table.add_row(name, *(cell for pair in cells for cell in pair))
    yield table


def _difference(mine: Sequence[Row], theirs: Sequence[Row], name: str, digits: int) -> tuple[str, str]:
    if not all(np.isfinite(scores(rows, name)).all() for rows in (mine, theirs)):
        return "diverged", "–"
    higher, *_ = probability_of_improvement(scores(mine, name), scores(theirs, name))
    by_seed = [{r.case.seed: r.numbers["test"][name] for r in rows} for rows in (mine, theirs)]
    common = sorted(set(by_seed[0]) & set(by_seed[1]))
    if not common:
        return "–", f"{higher:.2f}"
    left, right = (np.array([scores_of_seed[seed] for seed in common]) for scores_of_seed in by_seed)
    difference = paired_difference(left, right)
    mean = f"{difference.mean:+.{digits}f}"
    interval_text = f" [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]" if len(common) > 1 else ""
    return mean + interval_text, f"{higher:.2f}"
