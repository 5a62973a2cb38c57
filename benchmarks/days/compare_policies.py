"""`marca simulate` from trace to table: prepare the policies, replay a day, summarise, write and draw."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from benchmarks.days.artefacts import MOST_REQUESTS, true_pool, truth_note
from benchmarks.days.balancer_evaluation import JUDGE_SEED
from benchmarks.days.calibration import Calibration, ValueFunction
from benchmarks.days.policies import build_policy, check_policies, load_values, needed_checkpoints
from benchmarks.days.trace_days import trace_day
from benchmarks.evaluation import metrics
from benchmarks.evaluation.latency_summary import latency_summary, latency_table
from benchmarks.plotting.day_figure import day_figure
from benchmarks.training.default_learner import default_checkpoint
from marca_env.logs.schema import OUTCOMES
from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.day_simulator import clairvoyant_bound, replay
from marca_env.traffic.policies import Policy
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.time_series import TraceOptions
from marca_env.traffic.utilisation import overutilisation, utilisation
from marca_env.traffic.workload import Traffic
from marca_env.utils.argument_types import checked_path
from marca_env.utils.console import make_console
from marca_env.utils.errors import InputError
from marca_env.utils.files import atomic_path
from marca_env.utils.progress import count_progress
from marca_env.utils.validation import as_whole_number, check_seeds

SAMPLE = 600
"""Requests of the calibration: enough to choose one of 1,000 joint actions by its mean revenue."""
MOST_ITERATIONS = 1_000_000
BLOCK_MINUTES = 60
"""Length of the bootstrap's blocks, longer than the memory of the clusters and of every balancer."""


@dataclass
class Day:
    """A day of traffic, the test requests, and the policies to replay."""

    scenario: Scenario
    traffic: Traffic
    pool: RequestPool
    policies: list[Policy]
    seeds: list[int]
    interrupted: bool = False
    bounds: dict[int, float] = field(default_factory=dict)
    """Clairvoyant dual bound of the revenue, by seed."""

    @classmethod
    def prepare(
        cls,
        *,
        scenario: str | Path | Scenario,
        trace: str | None,
        minutes: int,
        start: str | None,
        trace_options: TraceOptions | None = None,
        policies: Sequence[Any],
        seeds: Sequence[int],
        checkpoint: str | None,
        single_checkpoint: str | None,
        requests: int,
        iterations: int,
        allow_code: Collection[str] = (),
    ) -> Day:
        """Check all input, then load, evaluate and train what is missing."""
        check_policies(policies)
        check_seeds(seeds)
        as_whole_number("--requests", requests, 1, MOST_REQUESTS)
        as_whole_number("--iterations", iterations, 1, MOST_ITERATIONS)
        for option, folder in (("--checkpoint", checkpoint), ("--single-checkpoint", single_checkpoint)):
            if folder is not None and not checked_path(folder, option).exists():
                raise InputError(f"{option} {folder}: no such folder; pass a policy folder, a checkpoint or a run")
        scenario = Scenario.load(scenario)
        traffic = trace_day(trace, scenario, minutes, start, trace_options).traffic
        multi_agent, single_agent = needed_checkpoints(policies)
        # What can be refused is read before any long work: given policies, and a budget that nothing fits.
        team = load_values(checkpoint, allow_code) if multi_agent and checkpoint else None
        single = load_values(single_checkpoint, allow_code) if single_agent and single_checkpoint else None
        calibration = Calibration(Engine.load(scenario), requests=SAMPLE, progress=True)
        _ = calibration.static_action
        values: dict[str, ValueFunction] = {}
        if multi_agent:
            learnt = team or load_values(default_checkpoint("AWRQMixer", scenario, iterations), allow_code)
            values |= {"marca-feedback": learnt, "marca-mpc": learnt}
        if single_agent:
            values["rl-mpca"] = single or load_values(default_checkpoint("JointDRQN", scenario, iterations), allow_code)
        pool = true_pool(scenario, requests, JUDGE_SEED)
        with count_progress("Calibrating the policies", len(policies)) as advance:
            built = []
            for name in policies:
                own = values.get(name) if isinstance(name, str) else None
                built.append(build_policy(name, calibration, pool.states, own, traffic.history_days()))
                advance()
        return cls(scenario, traffic, pool, built, list(seeds))

    def run(self) -> pd.DataFrame:
        """Replay every policy for every seed; on Ctrl-C return the minutes that are finished."""
        finished = []
        total = len(self.seeds) * len(self.policies) * len(self.traffic)
        try:
            with count_progress("Simulating", total) as advance:
                for seed in self.seeds:
                    counts = draw_arrivals(self.pool, self.traffic, seed)
                    for policy in self.policies:
                        rows = replay(policy, self.pool, self.traffic, counts, advance)
                        rows.insert(0, "policy", policy.name)
                        rows.insert(1, "seed", seed)
                        finished.append(rows)
                    self.bounds[seed] = clairvoyant_bound(self.pool, counts)
        except KeyboardInterrupt:
            self.interrupted = True
            if not finished:
                raise
        return pd.concat(finished, ignore_index=True)


# -- summary -------------------------------------------------------------------------------------------
def summarise(day: Day, minutes: pd.DataFrame) -> dict[str, Any]:
    """Summarise every policy over all seeds.

    The summary holds sums, rates, the uplift with its paired block-bootstrap interval, μ and ν, and with a latency
    limit the latency.
    """
    scenario = day.scenario
    blocks = minutes.assign(block=minutes["minute"] // BLOCK_MINUTES)
    revenue = {name: rows.groupby(["seed", "block"])["revenue"].sum() for name, rows in blocks.groupby("policy")}
    bound = sum(day.bounds.values())
    summary = {}
    for name, rows in minutes.groupby("policy", sort=False):
        totals = {k: float(rows[k].sum()) for k in OUTCOMES if k in rows}  # an analytic model gives the revenue only
        load = rows[[f"load_{c}" for c in scenario.cluster_names]].to_numpy()
        seeds = rows["seed"].unique()
        complete = bool(day.bounds) and all(s in day.bounds for s in seeds)
        summary[str(name)] = {
            **{k: totals[k] / len(seeds) if k in totals else None for k in ("revenue", "gmv", "impressions", "clicks")},
            **_uplift(revenue, str(name)),
            "ctr": totals["clicks"] / totals["impressions"] if "clicks" in totals else None,
            "roi": totals["gmv"] / totals["revenue"] if "gmv" in totals else None,
            "utilisation": dict(zip(scenario.cluster_names, utilisation(load, scenario.budgets), strict=True)),
            "overutilisation": dict(zip(scenario.cluster_names, overutilisation(load, scenario.budgets), strict=True)),
            "bound_share": totals["revenue"] / bound if complete and len(seeds) == len(day.bounds) else None,
        }
        if (latency := latency_summary(rows)) is not None:
            summary[str(name)]["latency"] = latency
    return {
        "trace": day.traffic.name,
        "scenario": scenario.name,
        "seeds": sorted(int(s) for s in minutes["seed"].unique()),
        "policies": summary,
    }


def _uplift(revenue: dict[Any, pd.Series], name: str) -> dict[str, Any]:
    """Return the uplift of the total revenue over the static rule, on the blocks that both have."""
    if "static" not in revenue:
        return {"uplift": None, "uplift_interval": None}
    pair = pd.concat([revenue[name], revenue["static"]], axis=1, join="inner").to_numpy()
    low, high = metrics.ratio_interval(pair[:, 0], pair[:, 1])
    return {"uplift": float(pair[:, 0].sum() / pair[:, 1].sum() - 1), "uplift_interval": [low, high]}


# -- output -----------------------------------------------------------------------------------------------
def report(day: Day, minutes: pd.DataFrame, out: Path) -> dict[str, Any]:
    """Print the tables; write ``minutes.csv``, ``summary.json`` and ``day.png`` into ``out``."""
    summary = summarise(day, minutes)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "minutes.csv", minutes.to_csv(index=False, float_format="%.7g"))
    _write(out / "summary.json", json.dumps(summary, indent=2, default=float))
    title = f"{day.traffic.name} · scenario {day.scenario.name} · {len(day.traffic)} minutes"
    day_figure(minutes, day.scenario, title, out / "day.png", day.traffic.first_minute)
    console = make_console()
    for table in tables_of(summary):
        console.print(table)
    if (note := truth_note(day.scenario)) is not None:
        console.print(note)
    if day.interrupted:
        console.print("Interrupted: the tables cover the policies and seeds that were finished.")
    console.print(f"Wrote {out}/minutes.csv, summary.json and day.png")
    return summary


def _write(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def tables_of(summary: dict[str, Any]) -> tuple[Table, ...]:
    """Return the tables of a summary: what was earned, how the budgets were used, and with a limit the latency."""
    seeds = len(summary["seeds"])
    money = Table(title=f"{summary['trace']}: what a day earns (mean of {seeds} seed{'s' * (seeds > 1)})")
    money.add_column("policy", no_wrap=True)
    for name in ("revenue", "over static", "of bound", "GMV", "impr.", "clicks", "CTR", "ROI"):
        money.add_column(name, justify="right", no_wrap=True)
    load = Table(title="how the budgets are used: utilisation μ and over-utilisation ν", caption=LEGEND)
    load.add_column("policy", no_wrap=True)
    for cluster in next(iter(summary["policies"].values()))["utilisation"]:
        load.add_column(f"μ {cluster}", justify="right")
        load.add_column(f"ν {cluster}", justify="right")
    for name, row in summary["policies"].items():
        share = "–" if row["bound_share"] is None else f"{row['bound_share']:.1%}"
        counts = [_short(row[k]) for k in ("gmv", "impressions", "clicks")]
        ratios = ["–" if row[k] is None else form.format(row[k]) for k, form in (("ctr", "{:.2%}"), ("roi", "{:.2f}"))]
        money.add_row(name, _short(row["revenue"]), _uplift_text(row), share, *counts, *ratios)
        pairs = [f"{row[k][c]:.2%}" for c in row["utilisation"] for k in ("utilisation", "overutilisation")]
        load.add_row(name, *pairs)
    latency = latency_table("how long requests take", "policy", summary["policies"])
    return (money, load) if latency is None else (money, load, latency)


LEGEND = "μ: mean of min(load, budget)/budget · ν: mean of max(load − budget, 0)/budget"


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _uplift_text(row: dict[str, Any]) -> str:
    if row["uplift"] is None:
        return "–"
    low, high = row["uplift_interval"]
    if not (math.isfinite(low) and math.isfinite(high)):  # less than two blocks of the bootstrap
        return f"{row['uplift']:+.1%}"
    return f"{row['uplift']:+.1%} [{100 * low:+.1f}, {100 * high:+.1f}]"
