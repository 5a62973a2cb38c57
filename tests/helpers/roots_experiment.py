"""An experiment of the tests' own: square roots by several methods.

``slow`` waits for a file ``go`` in the folder and tells by ``begun`` that it waits; ``broken`` raises, and
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
    """Roots of the seeds."""
    budget = {"steps": 3 if quick else 6}
    return [Case(m, seed, task="root", budget=budget) for seed in seeds for m in methods or METHODS]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """The error after the budget's steps."""
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
    low, high, found = 0.0, target + 1.0, target
    for _ in range(steps):
        if case.method == "bisection":
            found = (low + high) / 2
            low, high = (found, high) if found * found < target else (low, found)
        else:
            found = (found + target / found) / 2
    return {"error": abs(found - target**0.5)}


def guess(target: float, steps: int) -> float:
    """A user's method."""
    return target / 2


def tables(rows: Sequence[Row]) -> Iterable[Any]:
    """The largest error of each method."""
    from rich.table import Table

    table = Table("method", "largest error", title="square <roots>")
    for method in dict.fromkeys(row.case.method for row in rows):
        table.add_row(method, f"{max(r.numbers['error'] for r in rows if r.case.method == method):.3g}")
    yield table


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Errors of all rows."""
    from benchmarks.plotting.style import blank

    drawing = blank(figsize=(3, 2))
    drawing.subplots().semilogy([row.numbers["error"] + 1e-16 for row in rows], "o")
    folder.mkdir(parents=True, exist_ok=True)
    drawing.savefig(folder / "errors.png")
    return {"errors of all rows": folder / "errors.png"}
