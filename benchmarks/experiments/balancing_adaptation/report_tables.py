"""Tables of the adaptation experiment: recovery by method, and errors of the models before and after refits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.experiments.balancing_adaptation.adaptation_run import AFTER, TOLERANCES

WHEN = ("before", "after", "later")


def recovery_table(change: str, methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Return recovery times, and μ and ν in the hours around a change.

    Args:
        change: its name.
        methods: method → numbers of its seeds.
    """
    seeds = max(map(len, methods.values()))
    table = Table(
        title=f"{change}, {seeds} seed{'s'[: seeds > 1]}: recovery in minutes, – none in {AFTER}; "
        "μ and ν in percent; gains and margins tuned before the change"
    )
    limits = [f"within {tolerance:.0%}" for tolerance in TOLERANCES]
    for column in ("method", *limits, *(f"{x}, {when}" for when in WHEN for x in "μν")):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, runs in methods.items():
        minutes = [
            ", ".join("–" if run["recovery"][k] is None else str(run["recovery"][k]) for run in runs)
            for k in range(len(limits))
        ]
        shares = [np.mean([run[when][k] for run in runs], axis=0) for when in WHEN for k in (0, 1)]
        table.add_row(method, *minutes, *(" / ".join(f"{100 * x:.1f}" for x in share) for share in shares))
    return table


def model_table(change: str, adaptive: Sequence[Mapping[str, Any]]) -> Table:
    """Return the errors of the old and of the refitted model of the adaptive balancer, means over seeds."""
    table = Table(title=f"{change}: error of the log cost at disturbed prices, per cluster, mean over seeds")
    for column in ("model", "level", "shape", "refits adopted"):
        table.add_column(column, justify="right")
    for which in ("old", "new"):
        errors = [run["model"][which] for run in adaptive]
        cells = (
            " / ".join(f"{x:.3f}" for x in np.mean(np.abs([e[k] for e in errors]), axis=0)) for k in ("level", "shape")
        )
        adopted = [sum(a[1] == "adopted" for a in run["adaptations"]) for run in adaptive]
        table.add_row(which, *cells, ", ".join(map(str, adopted)) if which == "new" else "")
    return table
