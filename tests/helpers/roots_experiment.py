"""Square roots by several methods, an experiment for tests.

Method ``slow`` writes a file ``begun`` and waits for a file ``go`` in the folder; ``broken`` raises an error;
``deadly`` ends its process.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite.api import Case, Row

SEEDS = (2, 3)
METHODS = ("newton", "bisection")


def cases(*, quick: bool, seeds: Sequence[int], methods: Sequence[str] | None = None) -> list[Case]:
    """Return a case for every seed and method."""
    budget = {"steps": 3 if quick else 6}
    return [Case(m, seed, task="root", budget=budget) for seed in seeds for m in methods or METHODS]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Return the error after the steps of the budget."""
    if case.method == "broken":
        raise ZeroDivisionError("no root\nat all")
    if case.method == "deadly":
        os._exit(3)
    if case.method == "slow":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "begun").touch()
        while not (folder / "go").exists():
            time.sleep(0.05)
    steps, target = case.budget["steps"], float(case.seed)
    if "." in case.method:
        module, _, name = case.method.rpartition(".")
        return {"error": abs(getattr(importlib.import_module(module), name)(target, steps) - target**0.5)}
    low, high, root = 0.0, target + 1.0, target
    for _ in range(steps):
        if case.method == "bisection":
            root = (low + high) / 2
            low, high = (root, high) if root * root < target else (low, root)
        else:
            root = (root + target / root) / 2
    return {"error": abs(root - target**0.5)}


def guess(target: float, steps: int) -> float:
    """Return half of the target, as a user's method."""
    return target / 2


def tables(rows: Sequence[Row]) -> Iterable[Any]:
    """Return a table of the largest error of each method."""
    from rich.table import Table

    table = Table("method", "largest error", title="square <roots>")
    for method in dict.fromkeys(row.case.method for row in rows):
        table.add_row(method, f"{max(r.numbers['error'] for r in rows if r.case.method == method):.3g}")
    yield table


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw the errors of all rows."""
    from benchmarks.plotting.style import new_figure

    drawing = new_figure(figsize=(3, 2))
    drawing.subplots().semilogy([row.numbers["error"] + 1e-16 for row in rows], "o")
    folder.mkdir(parents=True, exist_ok=True)
    drawing.savefig(folder / "errors.png")
    return {"errors of all rows": folder / "errors.png"}
