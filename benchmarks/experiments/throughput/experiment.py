"""Updates and decisions per second of AWRQ-Mixer at the paper's size, as shares of the machine's matrix-product rate.

An update is the learner's own: forward passes of the online and the target network, loss, backward pass, clipping,
Adam, target network (2,048 episodes, 20 heads, GRU 256, heads [512, 256], fp32, the default scenario). A decision
is ``AllocationPolicy.decide`` over 1,000 joint actions. The rate to compare with is the rate of a large fp32 matrix
product, timed just before and after each measurement. Floating-point operations are those of every matrix product in
the measured code, as torch counts them; those of the Q networks are also computed by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.experiments.throughput.decisions import measure_decisions
from benchmarks.suite.api import Case, Row

ALONE = True
PARTS = ("sampling",)
SEEDS = (0,)
METHOD = "AWRQMixer"
UPDATE, DECIDE = "update", "decide"
UPDATE_BUDGET = {"batch": 2048, "repeats": 7}
QUICK_UPDATE_BUDGET = {"batch": 32, "repeats": 2}
DECIDE_BUDGET = {"requests": 4096, "singles": 300, "repeats": 7}
QUICK_DECIDE_BUDGET = {"requests": 8, "singles": 5, "repeats": 2}
"""Episodes of an update, requests of a decision, decisions of one request each, and repeats."""
TARGET_SHARE = 0.6


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return one case for the updates and one for the decisions."""
    update = QUICK_UPDATE_BUDGET if quick else UPDATE_BUDGET
    decide = QUICK_DECIDE_BUDGET if quick else DECIDE_BUDGET
    return [
        Case(METHOD, seed, task=task, budget=budget)
        for seed in seeds
        for task, budget in ((UPDATE, update), (DECIDE, decide))
    ]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Measure updates, or decisions for large batches and for one request at a time.

    Returns:
        ``rows``: floating-point operations, rate, and ``share`` of the matrix-product rate by wall-clock time
        (``cpu_share``: by CPU time, which other programs disturb less), each ``[median, lowest, highest]``; of
        decisions also ``single``: milliseconds of a decision for one request, p50 and p99.
    """
    about = {"threads": torch.get_num_threads(), "target_share": TARGET_SHARE}
    if case.task == UPDATE:
        from benchmarks.experiments.throughput.updates import measure_updates

        return {**about, "rows": [measure_updates(case.seed, **case.budget)]}
    rows, single = measure_decisions(case.seed, **case.budget)
    return {**about, "rows": rows, "single": single}


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return rates and shares, then the times of single decisions."""
    if not rows:
        return
    threads = ", ".join(dict.fromkeys(str(row.numbers["threads"]) for row in rows))
    yield _rates_table([numbers for row in rows for numbers in row.numbers["rows"]], threads)
    single = [numbers for row in rows for numbers in row.numbers.get("single", ())]
    if single:
        table = Table("one request", "p50, ms", "p99, ms", title="decide, one request at a time")
        for numbers in single:
            table.add_row(numbers["what"], f"{numbers['p50_ms']:.3g}", f"{numbers['p99_ms']:.3g}")
        yield table


def _rates_table(rows: Sequence[Mapping[str, Any]], threads: str) -> Table:
    title = f"AWRQ-Mixer at the paper's size, fp32, {threads} threads (median, lowest … highest)"
    table = Table("", "per second", "GFLOP", "GFLOP/s", "matrix products", "share", "share, CPU time", title=title)
    for row in rows:
        if row["flops"] == 0:  # answers from the policy's cache
            table.add_row(row["what"], _span(row["per_second"], "{:.3g}"), "0", *4 * ("–",))
            continue
        rates = [_span(row[key], "{:.3g}") for key in ("per_second", "gflops", "ceiling_gflops")]
        shares = [_span(row[key], "{:.0%}") for key in ("share", "cpu_share")]
        table.add_row(row["what"], rates[0], f"{row['flops'] / 1e9:.4g}", *rates[1:], *shares)
    return table


def _span(values: Sequence[float], form: str) -> str:
    middle, low, high = (form.format(v) for v in values)
    return f"{middle} ({low} … {high})"
