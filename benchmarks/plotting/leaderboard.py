"""A leaderboard of learners from their curves: final returns with intervals, who beats whom, how fast, and a figure."""

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
"""Whom the others are compared with."""
NEAR = 0.95
"""Share of its own final score that a run must have reached to count as there."""


class Board:
    """The runs of all methods, by seed.

    Args:
        rows: whose numbers hold a ``curve`` of ``env_steps``, ``return`` and ``seconds``.
        references: methods that do not learn; the score of a return is its place between ``random`` (0) and
            ``optimum`` (1).
    """

    def __init__(self, rows: Sequence[Row], references: Sequence[str]) -> None:
        self.curves: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
        for row in rows:
            self.curves.setdefault(row.case.method, {})[row.case.seed] = row.numbers["curve"]
        self.references = [name for name in references if name in self.curves]
        self.learners = [name for name in self.curves if name not in references]

    def finals(self, method: str) -> np.ndarray:
        """Last returns (seeds,)."""
        return np.array([curve[-1]["return"] for curve in self.curves.get(method, {}).values()])

    def score(self, returns: np.ndarray) -> np.ndarray:
        """Of returns; nan where a reference is missing."""
        low, high = (self.finals(name).mean() if name in self.curves else np.nan for name in ("random", "optimum"))
        return (np.asarray(returns) - low) / (high - low)

    def improvement(self, method: str, base: str = BASE) -> float:
        """Chance that a run of ``method`` ends above a run of ``base``, ties half; over all pairs of runs."""

        others = self.finals(base)
        return probability_of_improvement(self.finals(method), others)[0] if len(others) else float("nan")

    def area(self, method: str) -> float:
        """Mean score over the steps of training, over all seeds; a run begins with its first evaluation."""
        areas = []
        for curve in self.curves[method].values():
            steps = np.array([row["env_steps"] for row in curve], float)
            scores = self.score(np.array([row["return"] for row in curve]))
            whole = np.ptp(steps)
            areas.append(trapezoid(scores, steps) / whole if whole else scores[-1])
        return float(np.mean(areas))

    def arrival(self, method: str) -> tuple[float, float]:
        """Median environment steps and seconds after which a run has :data:`NEAR` of its own final score; nan where a
        reference is missing."""
        found = []
        for curve in self.curves[method].values():
            scores = self.score(np.array([row["return"] for row in curve]))
            if np.isnan(scores[-1]):
                return float("nan"), float("nan")
            at = curve[int(np.argmax(scores >= min(NEAR * scores[-1], scores[-1])))]
            found.append((at["env_steps"], at["seconds"]))
        steps, seconds = np.median(np.array(found, float), axis=0)
        return float(steps), float(seconds)


def tables(rows: Sequence[Row], references: Sequence[str]) -> Iterable[Any]:
    """The board, best first; returns in thousandths."""

    board = Board(rows, references)
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
        cells = [f"{iqm(returns):.2f}", _interval(iqm_interval(returns), 2), _known(iqm(scores), ".3f")]
        cells += [_interval(iqm_interval(scores), 3), _known(board.improvement(name), ".2f")]
        cells += [_known(board.area(name), ".3f"), _known(steps, ",.0f"), _known(seconds, ".1f")]
        table.add_row(name, *cells, f"{run:.1f}")
    table.add_section()
    for name in board.references:
        table.add_row(f"({name})", f"{1000 * board.finals(name).mean():.2f}", *[""] * 8)
    yield table


def _known(value: float, form: str) -> str:
    """A number, or a dash where there is nothing that it could be measured by."""
    return "–" if np.isnan(value) else f"{value:{form}}"


def _interval(ends: tuple[float, float], digits: int) -> str:
    return "–" if np.isnan(ends[0]) else f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def figures(rows: Sequence[Row], references: Sequence[str], folder: Path) -> dict[str, Path]:
    """``curves.png``: mean returns against environment steps and against seconds of training; ``profiles.png``: share
    of runs above each score.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """

    board = Board(rows, references)
    if not board.learners:
        return {}
    levels = {name: float(board.finals(name).mean()) for name in board.references}
    runs = {name: list(board.curves[name].values()) for name in board.learners}
    clocks_figure(runs, levels, folder / "curves.png")
    found = {"Greedy return against environment steps and against seconds of training": folder / "curves.png"}
    scores = {name: board.score(board.finals(name)) for name in board.learners}
    if any(np.isnan(values).any() for values in scores.values()):  # a reference is missing
        return found
    label = "score: 0 random, 1 optimum"
    return found | {"Performance profiles": profile_figure(scores, label, folder / "profiles.png")}
