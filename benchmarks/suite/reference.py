"""Rows that come with the package: what the README's tables were made of, so that only what is new needs measuring.

``benchmarks/reference/<experiment>/records.jsonl`` are records as :mod:`benchmarks.suite.records` writes them, of full runs
of experiments whose numbers are no speeds: copy ``results/bench/<experiment>/records.jsonl`` there to renew them.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.suite import records
from benchmarks.suite.api import Row
from benchmarks.suite.select_records import Shown, shown
from marca_env.utils.errors import InputError, unknown_option

FOLDER = Path(__file__).parents[1] / "reference"


def available() -> tuple[str, ...]:
    """Experiments that have such rows."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob(f"*/{records.FILE}")))


def add(name: str, out: Path) -> tuple[list[Row], Shown]:
    """Append an experiment's rows to the records in ``out``; cases that are there already stay as they are.

    Returns:
        The rows that were added, and what there was: rows of other settings than today's are not added.

    Raises:
        InputError: there are none of that name, or the records are damaged.
    """
    if name not in available():
        raise InputError(unknown_option("experiment with rows in the package", name, available()))
    there = {row.case.key for row in records.read(out / name)}
    found = shown(name, FOLDER / name)
    rows = [row for row in found.rows if row.case.key not in there]
    records.append(out / name, *rows)
    return rows, found
