"""Reference records that come with the package: the rows behind the documentation's tables.

``benchmarks/reference/<experiment>/records.jsonl`` are records as :mod:`benchmarks.suite.records` writes them, of full
runs of experiments that do not measure speed. To renew them, copy ``results/bench/<experiment>/records.jsonl`` there.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.suite import records
from benchmarks.suite.api import Row
from benchmarks.suite.select_records import SelectedRecords, select_records
from marca_env.utils.errors import InputError, unknown_option

FOLDER = Path(__file__).parents[1] / "reference"


def reference_names() -> tuple[str, ...]:
    """Return the experiments that have reference records."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob(f"*/{records.FILE}")))


def add_reference_rows(name: str, out: Path) -> tuple[list[Row], SelectedRecords]:
    """Append an experiment's reference rows to the records in ``out``; cases that are recorded there stay as they are.

    Returns:
        The rows that were added, and the selection they come from: rows of outdated settings are not added.

    Raises:
        InputError: the experiment has no reference records, or records are damaged.
    """
    if name not in reference_names():
        raise InputError(unknown_option("experiment with reference records", name, reference_names()))
    recorded = {row.case.key for row in records.read(out / name)}
    selected = select_records(name, FOLDER / name)
    rows = [row for row in selected.rows if row.case.key not in recorded]
    records.append(out / name, *rows)
    return rows, selected
