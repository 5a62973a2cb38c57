"""Tables and figures of the experiments that train from the log: ranking, ablation, sensitivity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from benchmarks.evaluation.statistics import iqm, iqm_interval, paired_difference, probability_of_improvement
from benchmarks.offline.offline_runs import PER_ITERATION, convergence, gradient_variance
from benchmarks.plotting.style import new_figure, open_axes, save_figure
from benchmarks.suite.api import Row

if TYPE_CHECKING:
    from rich.table import Table

TRUTHS = {"model": "by the ensemble", "cascade": "by the cascade"}
SCORES = {"spearman": ("r_s", 3), "return": ("Return%", 2)}
"""Score → how it is written, and its digits."""


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by method, and by task where there are several; in the order in which they come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(" ".join(filter(None, (row.case.method, row.case.task))), []).append(row)
    return found


def scores(rows: Sequence[Row], name: str) -> np.ndarray:
    """A score of finished runs by its name, such as ``spearman_model``, (runs,); runs without it are left out."""
    return np.array([r.numbers["test"][name] for r in rows if name in r.numbers["test"]], float)


def score_table(rows: Sequence[Row], title: str, label: str) -> Table:
    """IQM over seeds with its 95 % bootstrap interval, a line for each method and task."""
    table = Table(title=f"{title}: interquartile mean over seeds [95 % interval]")
    table.add_column(label)
    table.add_column("seeds", justify="right")
    for told in TRUTHS.values():
        for written, _ in SCORES.values():
            table.add_column(f"{written} {told}", justify="right")
    for name, group in grouped(rows).items():
        cells = [interval(scores(group, f"{s}_{t}"), digits) for t in TRUTHS for s, (_, digits) in SCORES.items()]
        table.add_row(name, str(len(group)), *cells)
    return table


def interval(values: np.ndarray, digits: int) -> str:
    """``IQM [low, high]``, as far as there are values; with a run that has diverged there is neither."""
    if not len(values):
        return "–"
    if not np.isfinite(values).all():
        return f"diverged: {(~np.isfinite(values)).sum()} of {len(values)}"
    low, high = iqm_interval(values)
    told = f"{iqm(values):.{digits}f}"
    return told if len(values) < 2 else f"{told} [{low:.{digits}f}, {high:.{digits}f}]"


def curves_figure(rows: Sequence[Row], path: Path) -> Path:
    """Validation r_s and Return% against updates, the mean over seeds and their range; PNG."""
    drawing = new_figure(figsize=(10.4, 4.2))
    left, right = drawing.subplots(1, 2)
    for number, (name, group) in enumerate(grouped(rows).items()):
        updates = [point["updates"] for point in group[0].numbers["curve"]]
        marker = "o" if len(updates) == 1 else None  # a line of one point is not seen
        for axis, score in ((left, "spearman_model"), (right, "return_model")):
            lines = np.array([[point[score] for point in row.numbers["curve"]] for row in group])
            axis.plot(updates, lines.mean(0), color=f"C{number % 10}", linewidth=1.7, label=name, marker=marker)
            axis.fill_between(updates, lines.min(0), lines.max(0), color=f"C{number % 10}", alpha=0.12, linewidth=0)
    for axis, told in ((left, "r_s by the ensemble, validation rows"), (right, "Return%; mean and range over seeds")):
        axis.set_title(told, loc="left", fontsize=11)
        axis.set_xlabel("updates")
        open_axes(axis)
        axis.margins(x=0.01)
        drawn = np.concatenate([line.get_ydata() for line in axis.get_lines()])
        low, high = np.percentile(drawn[np.isfinite(drawn)], [10, 100]) if np.isfinite(drawn).any() else (0.0, 0.0)
        if low < high:  # else all are alike, or have diverged
            axis.set_ylim(low, high + 0.05 * (high - low))
    handles, labels = left.get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False)
    save_figure(drawing, path)
    return path


def training_table(rows: Sequence[Row], window: int) -> Table:
    """Convergence, and the variance of the gradient's norm within windows of ``window`` reports, also in units of its
    squared mean, which a mere change of scale leaves alone.
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
    for name, group in grouped(rows).items():
        found = [r.numbers for r in group]
        steps = [
            np.array([convergence(n["curve"], of=of) for n in found], float)
            for of in ("return_model", "spearman_model")
        ]
        variance = np.array([gradient_variance(n["grad_norm"], window) for n in found])
        mean = np.array([np.mean(n["grad_norm"]) for n in found])
        cells = [interval(s, 0) for s in steps]
        cells += [interval(variance, 4), interval(mean, 3), interval(variance / mean**2, 3)]
        table.add_row(name, *cells)
    return table


def against(rows: Sequence[Row], first: str) -> Iterator[Table]:
    """A method against each of the others: mean difference over common seeds with its interval, and the
    probability of improvement; nothing where there is no other.
    """
    groups = grouped(rows)
    if first not in groups or len(groups) < 2:
        return
    title = f"{first} minus the other, by the ensemble: mean difference [95 %]; P: chance that it scores higher"
    table = Table(title=title)
    table.add_column("method")
    for written, _ in SCORES.values():
        table.add_column(written, justify="right")
        table.add_column(f"P, {written}", justify="right")
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
    left, right = (np.array([found[seed] for seed in common]) for found in by_seed)
    found = paired_difference(left, right)
    told = f"{found.mean:+.{digits}f}"
    return f"{told} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]" if len(common) > 1 else told, f"{higher:.2f}"
