"""What ``marca bench run fidelity`` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

if TYPE_CHECKING:
    from rich.table import Table


def tables(result: dict[str, Any]) -> Iterable[Table]:
    """Costs, slices, policies and their agreement, and the rivals."""
    yield _costs(result)
    yield _slices(result)
    yield from _policies(result)
    yield _results(result["results"])
    yield _revenue(result["revenue"])


def _table(title: str, *columns: str, caption: str | None = None) -> Table:
    table = Table(title=title, caption=caption)
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k else "left")
    return table


def _costs(result: dict[str, Any]) -> Table:
    title = f"Cost per cluster, {result['requests']} unseen requests under every joint action"
    table = _table(title, "cluster", "test–retest", "cost map", "predicted results", "ratio", "whole requests")
    for row in result["costs"]:
        errors = [f"{row[k]:.1%}" for k in ("spread", "map", "results")]
        table.add_row(row["cluster"], *errors, f"{row['ratio']:.2f}", f"{row['whole']:+.1%}")
    return table


def _slices(result: dict[str, Any]) -> Table:
    table = _table(
        "Revenue per slice, weighted by spend", "slice", "groups", "PE", "AbsPE", "chance alone", "r_s of means"
    )
    for row in result["slices"]:
        rank = "–" if row["spearman"] is None else f"{row['spearman']:.3f}"
        errors = f"{row['pe']:+.1%}", f"{row['abs_pe']:.1%}", f"{row['chance']:.1%}"
        table.add_row(row["slice"], str(row["groups"]), *errors, rank)
    return table


def _policies(result: dict[str, Any]) -> Iterable[Table]:
    table = _table(
        "Policies: revenue per request", "policy", "fitted", "live", "fitted / live − 1", "net fitted", "net live"
    )
    for row in sorted(result["policies"], key=lambda row: -row["live_revenue"]):
        off = row["fitted_revenue"] / row["live_revenue"] - 1.0
        earned, net = ([f"{row[f'{where}_{k}']:.4f}" for where in ("fitted", "live")] for k in ("revenue", "net"))
        table.add_row(row["policy"], *earned, f"{off:+.1%}", *net)
    yield table
    agreement = _table("Do both rank them alike?", "of", "policies", "Kendall's τ", "95 % interval", "best, live")
    for row in result["ranking"]:
        low, high = row["interval"]
        numbers = f"{row['tau']:.3f}", f"[{low:.3f}, {high:.3f}]", f"{row['best']:.1%}"
        agreement.add_row(row["of"], str(row["policies"]), *numbers)
    yield agreement


def _over_seeds(rows: list[dict[str, Any]], key: str, form: str = "{:.3f}") -> str:
    """Mean and range over seeds."""
    found = [row[key] for row in rows]
    low, high = (form.format(x) for x in (min(found), max(found)))
    return form.format(np.mean(found)) + (f" [{low}, {high}]" if low != high else "")


def _grouped(rows: list[dict[str, Any]], *keys: str) -> dict[tuple, list[dict[str, Any]]]:
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    return groups


def _results(rows: list[dict[str, Any]]) -> Table:
    columns = "model", "stage", "held out: candidates", "relative", "unseen: candidates", "relative", "size", "time ×"
    table = _table("Action results: mean absolute error", *columns)
    times = {k: np.mean([r["fit_cpu_s"] for r in v]) for k, v in _grouped(rows, "model").items()}
    for (model, stage), found in _grouped(rows, "model", "stage").items():
        cells = []
        for where in ("held out", "unseen"):
            of = [row for row in found if row["rows"] == where]
            cells += [_over_seeds(of, "mae", "{:.2f}"), _over_seeds(of, "relative", "{:.2%}")]
        ratio = times[(model,)] / times[("MMoE-DCN",)]
        table.add_row(model, stage, *cells, f"{np.mean([r['size'] for r in found]):,.0f}", f"{ratio:.2f}")
    return table


def _revenue(rows: list[dict[str, Any]]) -> Table:
    columns = (
        "model",
        "r_s, pairs",
        "r_s, tenths × actions",
        "r_s, actions",
        "calibration",
        "r_s, log",
        "size",
        "time ×",
    )
    table = _table("Revenue of unseen requests, against the truth", *columns)
    groups = _grouped(rows, "model")
    first = np.mean([row["fit_cpu_s"] for row in groups[("two-part ensemble",)]])
    for (model,), found in groups.items():
        cells = [_over_seeds(found, k) for k in ("spearman", "by_group", "by_action", "calibration", "log_spearman")]
        ratio = np.mean([row["fit_cpu_s"] for row in found]) / first
        table.add_row(model, *cells, f"{np.mean([row['size'] for row in found]):,.0f}", f"{ratio:.2f}")
    return table
