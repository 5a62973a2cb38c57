"""Returns and normalised scores of all runs, by task and method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.experiments.tasks.settings import METHODS, REFERENCES
from benchmarks.suite.api import Row

JOINT_METHODS = ("JointDQN", "JointDDQN", "JointDRQN", "AveragedDQN", "REM")
"""Presets in which one controller takes all decisions."""


class TaskScores:
    """The runs of all methods on all tasks.

    A score is a return scaled so that the best static action is 0 and the bound of joint decisions is 1. Where that
    bound is unknown, the best mean return of a method stands for it, and the task is named in :attr:`without_bound`.

    Args:
        rows: of the experiment.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.runs: dict[str, dict[str, dict[int, Mapping[str, Any]]]] = {}
        """Task → method → seed → numbers."""
        self.references: dict[str, dict[str, Mapping[str, Any]]] = {}
        """Task → reference → numbers."""
        for row in rows:
            if row.case.method in REFERENCES:
                self.references.setdefault(row.case.task, {})[row.case.method] = row.numbers
            else:
                self.runs.setdefault(row.case.task, {}).setdefault(row.case.method, {})[row.case.seed] = row.numbers
        self.tasks = [task for task in self.runs if np.isfinite(self.reference(task, "static"))]
        """Tasks with runs and a static action."""
        self.without_bound = [task for task in self.tasks if not np.isfinite(self.reference(task, "joint"))]
        order = {name: k for k, name in enumerate(METHODS)}
        found = dict.fromkeys(method for of_task in self.runs.values() for method in of_task)
        self.methods = sorted(found, key=lambda name: order.get(name, len(order)))

    def reference(self, task: str, name: str) -> float:
        """Return a reference's return; nan if it was not measured, or is unknown."""
        numbers = self.references.get(task, {}).get(name)
        value = None if numbers is None else numbers["curve"][-1]["return"]
        return float("nan") if value is None else float(value)

    def returns(self, task: str, method: str) -> np.ndarray:
        """Return the last return of each seed, (seeds,); those of a run that has diverged are the random policy's."""
        runs = self.runs.get(task, {}).get(method, {})
        finals = np.array([runs[seed]["curve"][-1]["return"] for seed in sorted(runs)], float)
        return np.where(np.isfinite(finals), finals, self.reference(task, "random"))

    def bounds(self, task: str) -> tuple[float, float]:
        """Return the returns that score 0 and 1."""
        low, high = self.reference(task, "static"), self.reference(task, "joint")
        if not np.isfinite(high):
            high = max(float(self.returns(task, method).mean()) for method in self.runs[task])
            high = high if high > low else low + abs(low)  # all are below the static action
        return low, high

    def scores(self, task: str, method: str) -> np.ndarray:
        """Return the scores of a method's runs on a task, (seeds,)."""
        low, high = self.bounds(task)
        return (self.returns(task, method) - low) / (high - low)

    def table(self, method: str, tasks: Sequence[str] | None = None) -> np.ndarray:
        """Return the scores (runs, tasks) of a method on all ``tasks``, with as many runs as each task has.

        Raises:
            KeyError: it has no runs on one of them.
        """
        columns = [self.scores(task, method) for task in tasks or self.tasks]
        if not all(map(len, columns)):
            raise KeyError(method)
        least = min(map(len, columns))
        return np.stack([column[:least] for column in columns], axis=1)

    def complete(self) -> list[str]:
        """Return the methods that have runs on every task."""
        return [m for m in self.methods if all(self.runs[task].get(m) for task in self.tasks)]
