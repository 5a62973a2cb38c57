"""Tables and figures of the leaderboard of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.evaluation.statistics import iqm, iqm_interval, probability_of_improvement
from benchmarks.experiments.tasks.scores import JOINT_METHODS, TaskScores
from benchmarks.experiments.tasks.settings import REFERENCES
from benchmarks.plotting.curves import curve, profile_figure, score_curves_figure
from benchmarks.suite.api import Row

BASE = "QMIX"
"""The method that all others are compared with."""


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return all tables that the rows allow."""
    found = TaskScores(rows)
    if not found.tasks:
        return
    yield _scores_by_task(found)
    if len(found.complete()) > 1:
        yield _aggregate(found)
    yield _separation(found)
    yield _returns(found)
    yield _searches(found)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw ``curves.png``, a panel for each task, and ``profiles.png`` of the methods that have runs on every task.

    Returns:
        Caption → file.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    found = TaskScores(rows)
    if not found.tasks:
        return {}
    curves = {task: _curves_of_task(found, task) for task in found.tasks}
    captions = {"Score of the greedy policy during training": score_curves_figure(curves, folder / "curves.png")}
    complete = {method: found.table(method) for method in found.complete()}
    if complete:
        label = "score: 0 best static action, 1 bound of joint decisions"
        captions["Performance profiles over all tasks"] = profile_figure(complete, label, folder / "profiles.png")
    return captions


def _curves_of_task(found: TaskScores, task: str) -> dict[str, dict[str, Any]]:
    low, high = found.bounds(task)
    lines = {}
    for method in found.methods:
        runs = [list(numbers["curve"]) for numbers in found.runs[task].get(method, {}).values()]
        if runs:
            line = curve(runs)
            scores = (np.asarray(line["returns"]) - low) / (high - low)
            lines[method] = {"env_steps": line["env_steps"], "returns": scores.tolist()}
    return lines


def _scores_by_task(found: TaskScores) -> Table:
    caption = "95 % intervals of a bootstrap over seeds."
    if found.without_bound:
        caption += f" Without a bound of joint decisions, 1 is the best method: {', '.join(found.without_bound)}."
    estimated = [t for t in found.tasks if found.references[t].get("joint", {}).get("is_estimate")]
    if estimated := [task for task in estimated if task not in found.without_bound]:
        caption += f" The bound is an estimate: {', '.join(estimated)}."
    table = _table("score by task, IQM over seeds: 0 best static action, 1 bound of joint decisions", caption)
    for task in found.tasks:
        table.add_column(task, justify="right", no_wrap=True)
    ranked = sorted(found.methods, key=lambda method: -_mean_score(found, method))
    for method in ranked:
        table.add_row(method, *[_score_cell(found, task, method) for task in found.tasks])
    table.add_section()
    table.add_row("(random)", *[_of_reference(found, task, "random") for task in found.tasks])
    return table


def _mean_score(found: TaskScores, method: str) -> float:
    """Return the mean IQM over the tasks on which a method has runs."""
    return float(np.mean([iqm(s) for task in found.tasks if len(s := found.scores(task, method))] or [-np.inf]))


def _score_cell(found: TaskScores, task: str, method: str) -> str:
    scores = found.scores(task, method)
    return "–" if not len(scores) else f"{iqm(scores):.3f} {_interval(iqm_interval(scores))}".strip()


def _of_reference(found: TaskScores, task: str, name: str) -> str:
    low, high = found.bounds(task)
    return _cell((found.reference(task, name) - low) / (high - low))


def _aggregate(found: TaskScores) -> Table:
    table = _table(
        f"all {len(found.tasks)} tasks together: IQM of the scores, and whether a run scores higher than one of {BASE}",
        "95 % intervals of a bootstrap stratified by task (Agarwal et al., 2021). Median: over tasks, of the mean.",
    )
    for column in ("IQM", "95 %", "median", "mean", f"P(over {BASE})", "95 %", "s a run"):
        table.add_column(column, justify="right", no_wrap=True)
    complete = found.complete()
    base = found.table(BASE) if BASE in complete else None
    for method in sorted(complete, key=lambda name: -iqm(found.table(name))):
        scores = found.table(method)
        cells = [f"{iqm(scores):.3f}", _interval(iqm_interval(scores))]
        cells += [f"{np.median(scores.mean(axis=0)):.3f}", f"{scores.mean():.3f}"]
        better = (float("nan"),) * 3 if base is None or method == BASE else probability_of_improvement(scores, base)
        cells += [_cell(better[0], 2), _interval(better[1:], 2)]
        table.add_row(method, *cells, f"{_seconds(found, method):.1f}")
    return table


def _seconds(found: TaskScores, method: str) -> float:
    """Return the mean seconds of training of a run."""
    runs = [numbers for task in found.tasks for numbers in found.runs[task].get(method, {}).values()]
    return float(np.mean([numbers["curve"][-1]["seconds"] for numbers in runs]))


def _separation(found: TaskScores) -> Table:
    table = _table(
        "does the task separate methods?",
        "Separated: the 95 % intervals of the IQM do not overlap. P: probability that a run of the first scores higher "
        "than one of the second.",
    )
    for column in ("best", "worst", "separated", f"P({BASE} > VDN)", "best joint controller", f"P({BASE} > it)"):
        table.add_column(column, justify="right" if column.startswith("P") else "left", no_wrap=True)
    table.columns[0].header = "task"
    for task in found.tasks:
        of_task = sorted((m for m in found.methods if found.runs[task].get(m)), key=lambda m: -_iqm(found, task, m))
        best, worst = of_task[0], of_task[-1]
        ends = [iqm_interval(found.scores(task, method)) for method in (best, worst)]
        separated = "–" if np.isnan(ends[0][0]) or np.isnan(ends[1][0]) else "yes" if ends[0][0] > ends[1][1] else "no"
        joint = next((method for method in of_task if method in JOINT_METHODS), None)
        table.add_row(
            task,
            f"{best} {_iqm(found, task, best):.3f}",
            f"{worst} {_iqm(found, task, worst):.3f}",
            separated,
            _comparison(found, task, BASE, "VDN"),
            "–" if joint is None else f"{joint} {_iqm(found, task, joint):.3f}",
            "–" if joint is None else _comparison(found, task, BASE, joint),
        )
    return table


def _iqm(found: TaskScores, task: str, method: str) -> float:
    return iqm(found.scores(task, method))


def _comparison(found: TaskScores, task: str, first: str, second: str) -> str:
    """Return the probability that a run of the first method scores higher, with its interval."""
    a, b = found.scores(task, first), found.scores(task, second)
    if not len(a) or not len(b):
        return "–"
    value, low, high = probability_of_improvement(a, b)
    return f"{value:.2f} {_interval((low, high), 2)}".strip()


def _returns(found: TaskScores) -> Table:
    table = _table("greedy return in thousandths of currency per request, IQM over seeds", None)
    for task in found.tasks:
        table.add_column(task, justify="right", no_wrap=True)
    for method in found.methods:
        finals = [1000 * found.returns(task, method) for task in found.tasks]
        table.add_row(method, *[f"{iqm(values):.2f}" if len(values) else "–" for values in finals])
    table.add_section()
    for name in REFERENCES:
        values = [1000 * found.reference(task, name) for task in found.tasks]
        how = [found.references[task].get(name, {}).get("how", "").partition(":")[0] for task in found.tasks]
        cells = [_cell(value, 2) + (f" ({h})" if h else "") for value, h in zip(values, how, strict=True)]
        table.add_row(f"({name})", *cells)
    return table


def _searches(found: TaskScores) -> Table:
    table = _table("options that the searches found (best of all trials), and their CPU seconds", None)
    for task in found.tasks:
        table.add_column(task, no_wrap=True)
    for method in found.methods:
        cells = []
        for task in found.tasks:
            runs = list(found.runs[task].get(method, {}).values())
            if not runs:
                cells.append("–")
                continue
            seconds = sum(trial["cpu_seconds"] for trial in runs[0]["trials"])
            options = ", ".join(f"{name}={value:g}" for name, value in runs[0]["tuned"].items())
            cells.append(f"{options or '–'} ({seconds:.0f} s)")
        table.add_row(method, *cells)
    return table


def _table(title: str, caption: str | None) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("method", no_wrap=True)
    return table


def _cell(value: float, digits: int = 3) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def _interval(ends: Sequence[float], digits: int = 3) -> str:
    return "" if np.isnan(ends[0]) else f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
