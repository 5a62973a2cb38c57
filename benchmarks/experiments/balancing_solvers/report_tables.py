"""Tables of the comparison of solvers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks.experiments.balancing_solvers.comparison import SCP


def methods_table(title: str, numbers: Mapping[str, Any], horizon: int) -> Table:
    """Return the objective and the time of every method."""
    table = Table(title=f"{title}: {numbers['states']} states, N = {horizon}, two clusters")
    for column in ("method", "J over best", "as good", "better", "CPU ms [10 %, 90 %]", "wall ms", "× SCP", "its"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    methods = numbers["methods"]
    for name, row in methods.items():
        middle, low, high = row["cpu_ms"]
        table.add_row(
            name,
            f"{row['excess']:+.2%}",
            f"{row['as_good']:.0%}",
            f"{row['better']:.0%}",
            f"{middle:.2f} [{low:.2f}, {high:.2f}]",
            f"{row['wall_ms'][0]:.2f}",
            f"{middle / methods[SCP]['cpu_ms'][0]:.2f}",
            f"{row['iterations']:.1f}",
        )
    return table


def parts_table(parts: Mapping[str, float]) -> Table:
    """Return the times of the parts of a control step."""
    table = Table(title="parts of a control step (median CPU time)")
    table.add_column("part")
    table.add_column("ms", justify="right")
    for name, milliseconds in parts.items():
        table.add_row(name, f"{milliseconds:.3f}")
    return table


def growth_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return times and objectives by horizon and number of clusters."""
    table = Table(title="growth")
    columns = "N", "clusters", "SCP CPU ms", "solver alone", "L-BFGS-B", "J − J of L-BFGS-B", "iterations", "built in s"
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["horizon"]),
            str(row["clusters"]),
            f"{row['scp_cpu_ms']:.1f}",
            f"{row['solver_alone_cpu_ms']:.1f}",
            f"{row['lbfgsb_cpu_ms']:.1f}",
            f"{row['objective_minus_lbfgsb']:+.2e}",
            f"{row['iterations']:.1f}",
            f"{row['build_seconds']:.2f}",
        )
    return table


def far_table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return how good plans from states far from the budget are, by the model and by the true law.

    Args:
        summaries: by task, of :func:`benchmarks.experiments.balancing_solvers.far_states.summarise_far`.
    """
    table = Table(title="states far from the budget")
    columns = "task", "states", "method", "within 1 % of best", "J over best", "worst", "J by true law", "CPU ms, 95 %"
    for column in columns:
        table.add_column(column, justify="left" if column in ("task", "method") else "right")
    for task, summary in summaries.items():
        for k, name in enumerate(summary["as_good"]):
            middle, high = summary["cpu_ms"][name]
            table.add_row(
                "" if k else task,
                "" if k else str(summary["states"]),
                name,
                f"{summary['as_good'][name]:.1%}",
                f"{summary['excess'][name]:+.2%}",
                f"{summary['worst'][name]:.2f}",
                f"{summary['true'][name]:.2e}" if name in summary["true"] else "",
                f"{middle:.1f}, {high:.1f}",
            )
    return table
