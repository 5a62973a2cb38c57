"""Tables of the allocation experiment."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table


def greedy_tables(by_task: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterable[Table]:
    """Yield speed and value of the greedy allocation by problem."""
    yield _filled(
        Table(title="greedy allocation within quotas: medians over repeats and seeds", title_justify="left"),
        ("pairs", "this rule, s", "plain loop, s", "ratio", "the same"),
        {task: _speed(numbers) for task, numbers in by_task.items()},
    )
    yield _filled(
        Table(
            title="its value, and the time of the optimum: mean shares, largest gap, median times",
            title_justify="left",
        ),
        ("of the optimum", "of the dual bound", "bound over optimum", "assignment, s", "linear program, s"),
        {task: _value(numbers) for task, numbers in by_task.items()},
    )


def samples_table(numbers: Mapping[str, Any]) -> Table:
    """Return Return% (revenue over the best possible) of the published samples."""
    table = Table(title="published samples (ten rows, published with the method, other data)", title_justify="left")
    table.add_column("allocation")
    table.add_column("Return%", justify="right")
    if "skipped" in numbers:
        table.add_row(str(numbers["skipped"]), "–")
    for name, value in numbers.get("return_percent", {}).items():
        table.add_row(name, f"{value:.1f}")
    return table


def _filled(table: Table, columns: Sequence[str], cells: Mapping[str, Sequence[str]]) -> Table:
    table.add_column("problem", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in cells.items():
        table.add_row(name, *row)
    return table


def _speed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    greedy, loop = (statistics.median(x for row in rows for x in row[k]) for k in ("greedy_seconds", "loop_seconds"))
    ratio = statistics.median(row["ratio"] for row in rows)
    identical = "yes" if all(row["identical"] for row in rows) else "NO"
    return [f"{rows[0]['pairs']:,}", f"{greedy:.3f}", f"{loop:.3f}", f"{ratio:.1f}", identical]


def _value(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    shares = [f"{statistics.mean(row[k] for row in rows):.2%}" for k in ("share_of_optimum", "share_of_bound")]
    gap = max(row["bound_gap"] for row in rows)
    program = [row["program_seconds"] for row in rows if "program_seconds" in row]
    seconds = statistics.median(row["assignment_seconds"] for row in rows)
    return [*shares, f"{gap:.0e}", f"{seconds:.2f}", f"{statistics.median(program):.2f}" if program else "–"]
