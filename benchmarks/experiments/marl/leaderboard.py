"""Leaderboard of learners from their curves: final returns with intervals, comparisons, speed, and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scipy.integrate import trapezoid

from benchmarks.evaluation.statistics import iqm, iqm_interval, probability_of_improvement
from benchmarks.plotting.curves import clocks_figure, profile_figure
from benchmarks.suite.api import Row

BASE = "QMIX"
"""The learner that all others are compared with."""
ARRIVED_SHARE = 0.95
"""Share of its final score at which a run counts as arrived."""


class Leaderboard:
    """The runs of all methods, by seed.

    Args:
        rows: rows whose numbers hold a ``curve`` of ``env_steps``, ``return`` and ``seconds``.
        references: methods that do not learn. A score is a return scaled so that ``random`` is 0 and ``optimum``
            is 1.
    """

    def __init__(self, rows: Sequence[Row], references: Sequence[str]) -> None:
        self.curves: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
        for row in rows:
            self.curves.setdefault(row.case.method, {})[row.case.seed] = row.numbers["curve"]
        self.references = [name for name in references if name in self.curves]
        self.learners = [name for name in self.curves if name not in references]

    def finals(self, method: str) -> np.ndarray:
        """Return the last return of each seed, (seeds,)."""
        return np.array([curve[-1]["return"] for curve in self.curves.get(method, {}).values()])

    def score(self, returns: np.ndarray) -> np.ndarray:
        """Return the scores of returns; nan if a reference is missing."""
        low, high = (self.finals(name).mean() if name in self.curves else np.nan for name in ("random", "optimum"))
        return (np.asarray(returns) - low) / (high - low)

    def improvement(self, method: str, base: str = BASE) -> float:
        """Return the probability that a run of ``method`` ends above a run of ``base``; a tie counts half."""
        base_finals = self.finals(base)
        return probability_of_improvement(self.finals(method), base_finals)[0] if len(base_finals) else float("nan")

    def area(self, method: str) -> float:
        """Return the mean score over the steps of training and all seeds; a run begins with its first evaluation."""
        areas = []
        for curve in self.curves[method].values():
            steps = np.array([row["env_steps"] for row in curve], float)
            scores = self.score(np.array([row["return"] for row in curve]))
            length = np.ptp(steps)
            areas.append(trapezoid(scores, steps) / length if length else scores[-1])
        return float(np.mean(areas))

    def arrival(self, method: str) -> tuple[float, float]:
        """Return the median environment steps and seconds after which a run has most of its final score.

        That is :data:`ARRIVED_SHARE` of it; nan if a reference is missing.
        """
        arrivals = []
        for curve in self.curves[method].values():
            scores = self.score(np.array([row["return"] for row in curve]))
            if np.isnan(scores[-1]):
                return float("nan"), float("nan")
            at = curve[int(np.argmax(scores >= min(ARRIVED_SHARE * scores[-1], scores[-1])))]
            arrivals.append((at["env_steps"], at["seconds"]))
        steps, seconds = np.median(np.array(arrivals, float), axis=0)
        return float(steps), float(seconds)


def tables(rows: Sequence[Row], references: Sequence[str]) -> Iterable[Table]:
    """Return the leaderboard, best first; returns are in thousandths."""
    board = Leaderboard(rows, references)
    if not board.curves:
        return
    table = Table(
        title="greedy return in thousandths, IQM over seeds; its score between random and optimum", title_justify="left"
    )
    table.add_column("method", no_wrap=True)
    for column in (
        "return",
        "95 %",
        "score",
        "95 %",
        f"P(over {BASE})",
        "area",
        "steps to own 95 %",
        "s to own 95 %",
        "s a run",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    ranked = sorted(board.learners, key=lambda name: -iqm(board.finals(name)))
    for name in ranked:
        returns, scores = 1000 * board.finals(name), board.score(board.finals(name))
        steps, seconds = board.arrival(name)
        run = np.mean([curve[-1]["seconds"] for curve in board.curves[name].values()])
        cells = [f"{iqm(returns):.2f}", _interval(iqm_interval(returns), 2), _cell(iqm(scores), ".3f")]
        cells += [_interval(iqm_interval(scores), 3), _cell(board.improvement(name), ".2f")]
        cells += [_cell(board.area(name), ".3f"), _cell(steps, ",.0f"), _cell(seconds, ".1f")]
        table.add_row(name, *cells, f"{run:.1f}")
    table.add_section()
    for name in board.references:
        table.add_row(f"({name})", f"{1000 * board.finals(name).mean():.2f}", *[""] * 8)
    yield table


def _cell(value: float, form: str) -> str:
    """Return a formatted number, or a dash for nan."""
    return "–" if np.isnan(value) else f"{value:{form}}"


def _interval(ends: tuple[float, float], digits: int) -> str:
    return "–" if np.isnan(ends[0]) else f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def figures(rows: Sequence[Row], references: Sequence[str], folder: Path) -> dict[str, Path]:
    """Draw ``curves.png`` and ``profiles.png``.

    The curves are mean returns against environment steps and against seconds of training; the profiles are the share of
    runs above each score.

    Returns:
        Caption → file.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    board = Leaderboard(rows, references)
    if not board.learners:
        return {}
    levels = {name: float(board.finals(name).mean()) for name in board.references}
    runs = {name: list(board.curves[name].values()) for name in board.learners}
    clocks_figure(runs, levels, folder / "curves.png")
    captions = {"Greedy return against environment steps and against seconds of training": folder / "curves.png"}
    scores = {name: board.score(board.finals(name)) for name in board.learners}
    if any(np.isnan(values).any() for values in scores.values()):  # a reference is missing
        return captions
    label = "score: 0 random, 1 optimum"
    return captions | {"Performance profiles": profile_figure(scores, label, folder / "profiles.png")}
