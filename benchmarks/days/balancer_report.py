"""Tables, CSV, JSON and figures that `marca balance` prints and writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from benchmarks.days.compare_balancers import BalancerComparison, flat_rows, summarise
from benchmarks.evaluation.latency_summary import latency_table
from benchmarks.plotting.balancer_figures import side_by_side, sweep_figure
from benchmarks.plotting.time_windows import TimeWindows
from marca_env.logs.log_files import write_table
from marca_env.utils.console import make_console
from marca_env.utils.files import write_json

LEGEND = (
    "μ: mean of min(load, budget)/budget · ν: mean of max(load − budget, 0)/budget · priced: minutes in which "
    "computation has a price, by the clairvoyant"
)
FORECASTS = (
    ("system model", "rmse"),
    ("the load stays", "persistence"),
    ("the cost per request stays", "persistence_per_request"),
    ("linear model", "linear"),
    ("linear model in logarithms", "linear_in_logs"),
)
METHODS_PER_FIGURE = 4
"""Most methods in a figure."""


def report(comparison: BalancerComparison, out: Path) -> dict[str, Any]:
    """Print the tables; write ``summary.json``, ``scores.csv``, ``minutes.csv`` and the figures into ``out``."""
    summary = summarise(comparison)
    out.mkdir(parents=True, exist_ok=True)
    console = make_console()
    clusters = comparison.calibration.scenario.cluster_names
    for table in (
        model_table(summary["model"], comparison.calibration.model.clusters),
        *score_tables(summary, clusters),
    ):
        console.print(table)
    written = ["summary.json"]
    write_json(out / "summary.json", json.loads(json.dumps(summary, default=float)))
    if comparison.rows:
        write_table(flat_rows(comparison.rows), out / "scores.csv")
        written.append("scores.csv")
    if comparison.minutes:
        write_table(pd.concat(comparison.minutes, ignore_index=True), out / "minutes.csv")
        written.append("minutes.csv")
    written += draw(comparison, summary, out)
    if comparison.interrupted:
        console.print("Interrupted: the tables cover the methods and seeds that were finished.")
    console.print(f"Wrote {', '.join(written)} in {out}", highlight=False)
    return summary


def draw(comparison: BalancerComparison, summary: Mapping[str, Any], out: Path) -> list[str]:
    """Draw ``balance.png`` (all methods), ``feedback_mpc.png`` and ``sweep.png``, each only if it has data.

    Returns:
        Names of the files.
    """
    names, clusters = [], comparison.calibration.scenario.cluster_names
    first = {str(m["method"].iloc[0]): m for m in reversed(comparison.minutes)}  # the first seed of each
    runs = {name: first[name] for name in summary["methods"] if name in first}
    scenario = comparison.calibration.scenario
    windows = TimeWindows.of(scenario, comparison.first_minute)
    title = f"{summary['traffic']}: load against budget, λ below (scenario {summary['scenario']})"
    options: dict[str, Any] = {"windows": windows, "limit": scenario.latency and scenario.latency.limit}
    for number, part in enumerate(_parts(list(runs)), start=1):
        names.append("balance.png" if number == 1 else f"balance_{number}.png")
        side_by_side({n: runs[n] for n in part}, clusters, title, out / names[-1], summary["methods"], **options)
    if "feedback" in runs and "mpc" in runs:
        pair = {n: runs[n] for n in ("feedback", "mpc")}
        side_by_side(pair, clusters, title, out / "feedback_mpc.png", summary["methods"], **options)
        names.append("feedback_mpc.png")
    if summary["sweep"]:
        points = [{"settings": r["settings"], "mu": r["mu"]["all"], "nu": r["nu"]["all"]} for r in summary["sweep"]]
        sweep_figure(points, f"{summary['traffic']}: settings of the MPC", out / "sweep.png")
        names.append("sweep.png")
    return names


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split the methods into the parts that share a figure."""
    for start in range(0, len(names), METHODS_PER_FIGURE):
        yield names[start : start + METHODS_PER_FIGURE]


def model_table(report: Mapping[str, Any], clusters: Sequence[str]) -> Table:
    """Return the held-out errors of the system model beside simpler forecasts."""
    steps = report.get("steps", {})
    table = Table(title="system model: held-out root mean square error over the mean load", title_justify="left")
    table.add_column("forecast", no_wrap=True)
    for cluster in clusters:
        for n in steps:
            table.add_column(f"{cluster}, {n} min", justify="right")
    for label, key in FORECASTS:
        cells = [f"{steps[n][key][g]:.1%}" for g in range(len(clusters)) for n in steps]
        table.add_row(label, *cells)
    counts = report.get("transitions", {})
    table.caption = f"{counts.get('held_out', 0)} transitions held out of {sum(counts.values())}, the last in time"
    return table


def score_tables(summary: Mapping[str, Any], clusters: Sequence[str]) -> Iterator[Table]:
    """Return the tables of how the budgets were used, of what that earned, and of the sweep."""
    seeds = len(summary["seeds"])
    where = f"{summary['traffic']}, {summary['minutes']} minutes, mean of {seeds} seed{'s' * (seeds != 1)}"
    if summary["methods"]:
        yield _use_table(f"{where}: all minutes", summary["methods"], clusters, "")
        yield _use_table(f"{where}: priced minutes", summary["methods"], clusters, "priced_")
        yield _revenue_table(where, summary["methods"])
        latency = latency_table(f"{where}: how long requests take", "method", summary["methods"], title_justify="left")
        if latency is not None:
            yield latency
        yield from _plan_tables(where, summary["methods"])
    if summary["sweep"]:
        labels = {", ".join(f"{k}={v}" for k, v in row["settings"].items()): row for row in summary["sweep"]}
        yield _use_table(f"{where}: settings of the MPC", labels, clusters, "")


def _use_table(title: str, rows: Mapping[str, Mapping[str, Any]], clusters: Sequence[str], prefix: str) -> Table:
    table = Table(title=title, title_justify="left", caption=LEGEND if prefix else None)
    table.add_column("method", no_wrap=True)
    for name in (*clusters, "together"):
        table.add_column(f"μ {name}", justify="right")
        table.add_column(f"ν {name}", justify="right")
    for label, row in rows.items():
        keys = (*clusters, "all")
        table.add_row(label, *(f"{row[prefix + k][c]:.2%}" for c in keys for k in ("mu", "nu")))
    return table


def _revenue_table(where: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title=f"{where}: what it earned", title_justify="left")
    table.add_column("method", no_wrap=True)
    for name in ("revenue", "of the dual bound", "λ change per minute", "degraded minutes", "requests lost", "events"):
        table.add_column(name, justify="right")
    for label, row in rows.items():
        events = ", ".join(f"{kind} {count}" for kind, count in row["events"].items()) or "–"
        cells = [f"{row['travel']:.1%}", f"{row['degraded']:.1%}", f"{row['lost']:.2%}"]
        table.add_row(label, f"{row['revenue']:,.0f}", f"{row['bound_share']:.2%}", *cells, events)
    return table


def _plan_tables(where: str, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    """Return the table of how plans were found, if any method plans."""
    plans_of = {label: row["plans"] for label, row in rows.items() if "plans" in row}
    if not plans_of:
        return
    table = Table(title=f"{where}: plans", title_justify="left")
    table.add_column("method", no_wrap=True)
    table.add_column("minutes whose plan converged", justify="right")
    table.add_column("convex programs or rounds per plan", justify="right")
    for label, plans in plans_of.items():
        table.add_row(label, f"{plans['converged']:.1%}", f"{plans['programs']:.1f}")
    yield table
