"""Tables of the fidelity experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table


def environment_tables(numbers: Mapping[str, Any]) -> Iterable[Table]:
    """Return costs, slices, policies and their agreement of the shipped environment."""
    yield _costs(numbers)
    yield _slices(numbers)
    yield from _policies(numbers)


def _table(title: str, *columns: str, caption: str | None = None) -> Table:
    table = Table(title=title, caption=caption)
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k else "left")
    return table


def _costs(numbers: Mapping[str, Any]) -> Table:
    title = f"Cost per cluster, {numbers['requests']} unseen requests under every joint action"
    table = _table(title, "cluster", "test–retest", "cost map", "predicted results", "ratio", "whole requests")
    for row in numbers["costs"]:
        errors = [f"{row[k]:.1%}" for k in ("spread", "map", "results")]
        table.add_row(row["cluster"], *errors, f"{row['ratio']:.2f}", f"{row['whole']:+.1%}")
    return table


def _slices(numbers: Mapping[str, Any]) -> Table:
    table = _table(
        "Revenue per slice, weighted by spend", "slice", "groups", "mean |PE|", "AbsPE", "chance alone", "r_s of means"
    )
    for row in numbers["slices"]:
        rank = "–" if row["spearman"] is None else f"{row['spearman']:.3f}"
        errors = f"{row['pe']:.1%}", f"{row['abs_pe']:.1%}", f"{row['chance']:.1%}"
        table.add_row(row["slice"], str(row["groups"]), *errors, rank)
    return table


def _policies(numbers: Mapping[str, Any]) -> Iterable[Table]:
    table = _table(
        "Policies: revenue per request", "policy", "fitted", "live", "fitted / live − 1", "net fitted", "net live"
    )
    for row in sorted(numbers["policies"], key=lambda row: -row["live_revenue"]):
        error = row["fitted_revenue"] / row["live_revenue"] - 1.0
        revenue, net = ([f"{row[f'{where}_{k}']:.4f}" for where in ("fitted", "live")] for k in ("revenue", "net"))
        table.add_row(row["policy"], *revenue, f"{error:+.1%}", *net)
    yield table
    agreement = _table(
        "Agreement of both rankings", "measure", "policies", "Kendall's τ", "95 % interval", "best, live"
    )
    for row in numbers["ranking"]:
        low, high = row["interval"]
        cells = f"{row['tau']:.3f}", f"[{low:.3f}, {high:.3f}]", f"{row['best']:.1%}"
        agreement.add_row(row["of"], str(row["policies"]), *cells)
    yield agreement


def _over_seeds(rows: Sequence[dict[str, Any]], key: str, form: str = "{:.3f}") -> str:
    """Return mean and range over seeds."""
    values = [row[key] for row in rows]
    low, high = (form.format(x) for x in (min(values), max(values)))
    return form.format(np.mean(values)) + (f" [{low}, {high}]" if low != high else "")


def _grouped(rows: Sequence[dict[str, Any]], *keys: str) -> dict[tuple, list[dict[str, Any]]]:
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    return groups


def results_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the errors of the models of the action results, and the CPU time of their fit over the MMoE-DCN's."""
    columns = "model", "stage", "held out: candidates", "relative", "unseen: candidates", "relative", "size", "time ×"
    table = _table("Action results: mean absolute error", *columns)
    times = {k: np.mean([r["fit_cpu_s"] for r in v]) for k, v in _grouped(rows, "model").items()}
    base = times.get(("MMoE-DCN",), np.nan)
    for (model, stage), group in _grouped(rows, "model", "stage").items():
        cells = []
        for where in ("held out", "unseen"):
            judged = [row for row in group if row["rows"] == where]
            cells += [_over_seeds(judged, "mae", "{:.2f}"), _over_seeds(judged, "relative", "{:.2%}")]
        size, ratio = np.mean([r["size"] for r in group]), times[(model,)] / base
        table.add_row(model, stage, *cells, f"{size:,.0f}", f"{ratio:.2f}")
    return table


def revenue_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the errors of the models of the revenue, and the CPU time of their fit over the ensemble's."""
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
    times = {model: np.mean([row["fit_cpu_s"] for row in group]) for (model,), group in groups.items()}
    base = times.get("two-part ensemble", np.nan)
    for (model,), group in groups.items():
        cells = [_over_seeds(group, k) for k in ("spearman", "by_group", "by_action", "calibration", "log_spearman")]
        size, ratio = np.mean([row["size"] for row in group]), times[model] / base
        table.add_row(model, *cells, f"{size:,.0f}", f"{ratio:.2f}")
    return table
