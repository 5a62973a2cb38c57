"""Tables of the balancing experiment: utilisation μ and over-utilisation ν, revenue and movement of the prices λ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.days.compare_balancers import means
from benchmarks.plotting.curves import band
from benchmarks.suite.api import Row, rows_by_method


def day_table(day: str, rows: Sequence[Row]) -> Table:
    """Return every method on a day: means over seeds, over all minutes and over those in which computation has a price.

    Args:
        day: its name.
        rows: of the day.
    """
    methods = {method: _over_seeds(group) for method, group in rows_by_method(rows).items()}
    shares = next(iter(methods.values()))["priced_share"]  # the clairvoyant's, even if its row is missing
    clusters = [c for c in shares if c != "all"]
    priced = ", ".join(f"{shares[c]:.0%} ({c})" for c in clusters)
    table = Table(title=f"{day}: computation has a price in {priced} of the minutes", title_justify="left")
    table.add_column("method", no_wrap=True)
    by_cluster = (f"{c} μ / ν, priced, %" for c in clusters)
    for column in ("seeds", "μ", "ν", "μ, priced, %", "ν, priced, %", *by_cluster, "of bound", "λ travel"):
        table.add_column(column, justify="right", no_wrap=True)
    for method, row in methods.items():
        cells = [str(row["seeds"]), f"{row['mu']['all']:.1%}", f"{row['nu']['all']:.2%}"]
        cells += [_interval(row, name) for name in ("priced_mu", "priced_nu")]
        cells += [f"{100 * row['priced_mu'][c]:.1f} / {100 * row['priced_nu'][c]:.2f}" for c in clusters]
        table.add_row(method, *cells, f"{row['bound_share']:.1%}", f"{row['travel']:.1%}")
    return table


def sale_table(title: str, rows: Sequence[Row]) -> Table:
    """Return every method on the hours around a sale."""
    table = Table(title=title, title_justify="left")
    for column in ("method", "μ", "ν", "of the bound", "λ travel"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        mu, nu, share, travel = (row.numbers[name] for name in ("mu", "nu", "bound_share", "travel"))
        table.add_row(row.case.method, f"{mu['all']:.2%}", f"{nu['all']:.2%}", f"{share:.2%}", f"{travel:.1%}")
    return table


def _over_seeds(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the means over seeds, and intervals of μ and ν."""
    numbers = [{k: v for k, v in row.numbers.items() if k != "commissioned"} for row in rows]
    summary = {**means(numbers), "seeds": len(numbers)}
    for name in ("mu", "nu", "priced_mu", "priced_nu"):
        values = np.array([list(row[name].values()) for row in numbers])  # (seeds, G + 1)
        low, high = band(values)
        summary[f"{name}_interval"] = {
            cluster: [float(low[k]), float(high[k])] for k, cluster in enumerate(numbers[0][name])
        }
    return summary


def _interval(row: Mapping[str, Any], name: str) -> str:
    digits = 2 if name.endswith("nu") else 1
    low, high = (100 * x for x in row[f"{name}_interval"]["all"])
    mean = f"{100 * row[name]['all']:.{digits}f}"
    return mean if np.isnan(low) else f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"
