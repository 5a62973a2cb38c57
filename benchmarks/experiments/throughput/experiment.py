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
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.model_files import check_device

ALONE = True
PARTS = ("sampling",)
SEEDS = (0,)
METHOD = "AWRQMixer"
UPDATE, DECIDE, DEVICE, REFERENCE = "update", "decide", "device", "reference"
UPDATE_BUDGET = {"batch": 2048, "repeats": 7}
QUICK_UPDATE_BUDGET = {"batch": 32, "repeats": 2}
DECIDE_BUDGET = {"requests": 4096, "singles": 300, "repeats": 7}
QUICK_DECIDE_BUDGET = {"requests": 8, "singles": 5, "repeats": 2}
"""Episodes of an update, requests of a decision, decisions of one request each, and repeats."""
DEVICE_BUDGETS = {
    "cuda": {"batch": 2048, "updates": 20, "repeats": 7, "size": 8192, "requests": 4096},
    "cpu": {"batch": 2048, "updates": 2, "repeats": 3, "size": 1024, "requests": 256},
}
QUICK_DEVICE_BUDGET = {"batch": 16, "updates": 2, "repeats": 1, "size": 128, "requests": 4}
REFERENCE_BUDGET = {"repeats": 7, "backend": "inductor"}
QUICK_REFERENCE_BUDGET = {"repeats": 1, "backend": None}
DEVICES = ("cpu", "cuda")
SIZES: tuple[dict[str, Any], ...] = (
    {"batch": 256, "heads": 5, "gru": 128, "hidden": []},
    {"batch": 2048, "heads": 20, "gru": 256, "hidden": []},
    {"batch": 2048, "heads": 20, "gru": 256, "hidden": [512, 256]},
)
"""Sizes of the updates beside a plain loop: small, with linear heads, and the paper's."""
QUICK_SIZES: tuple[dict[str, Any], ...] = ({"batch": 16, "heads": 2, "gru": 8, "hidden": []},)
TARGET_SHARE = 0.6


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS, device: str | None = None) -> list[Case]:
    """Return the cases: updates, decisions and a plain torch loop beside the updates; or those of one device.

    Args:
        quick: small budgets.
        seeds: seeds of networks and requests.
        device: ``cpu`` or ``cuda``: ceilings, updates, decisions and sampling there, with launches and waits.

    Raises:
        InputError: another device.
    """
    if device is not None:
        if device not in DEVICES:
            raise InputError(unknown_option("device", device, DEVICES))
        budget = QUICK_DEVICE_BUDGET if quick else DEVICE_BUDGETS[device]
        return [Case(METHOD, seed, task=DEVICE, budget=budget, config={"device": device}) for seed in seeds]
    update = QUICK_UPDATE_BUDGET if quick else UPDATE_BUDGET
    decide = QUICK_DECIDE_BUDGET if quick else DECIDE_BUDGET
    reference = QUICK_REFERENCE_BUDGET if quick else REFERENCE_BUDGET
    sizes = QUICK_SIZES if quick else SIZES
    tasks = [(UPDATE, update, {}), (DECIDE, decide, {}), *((REFERENCE, reference, x) for x in sizes)]
    return [
        Case(METHOD, seed, task=task, budget=budget, config=config) for seed in seeds for task, budget, config in tasks
    ]


def check(case: Case) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        InputError: no such device.
    """
    if case.task == DEVICE:
        check_device(case.config["device"])


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Measure updates, decisions for large batches and for one request at a time, the plain loop, or one device.

    Returns:
        ``rows``: floating-point operations, rate, and ``share`` of the matrix-product rate by wall-clock time
        (``cpu_share``: by CPU time, which other programs disturb less), each ``[median, lowest, highest]``; of
        decisions also ``single``: milliseconds of a decision for one request, p50 and p99. ``reference``: see
        :func:`benchmarks.experiments.throughput.against_reference.compare_updates`; ``device``: see
        :func:`benchmarks.experiments.throughput.on_device.measure_device`.
    """
    about = {"threads": torch.get_num_threads(), "target_share": TARGET_SHARE}
    if case.task == UPDATE:
        from benchmarks.experiments.throughput.updates import measure_updates

        return {**about, "rows": [measure_updates(case.seed, **case.budget)]}
    if case.task == REFERENCE:
        from benchmarks.experiments.throughput.against_reference import compare_updates

        return {**about, "rows": [], "reference": compare_updates(case.seed, dict(case.config), **case.budget)}
    if case.task == DEVICE:
        from benchmarks.experiments.throughput.on_device import measure_device

        return {**about, "rows": [], "device": measure_device(case.seed, case.config["device"], **case.budget)}
    rows, single = measure_decisions(case.seed, **case.budget)
    return {**about, "rows": rows, "single": single}


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return rates and shares, then the times of single decisions."""
    if not rows:
        return
    for row in rows:
        if "device" in row.numbers:
            yield from _device_tables(row.numbers["device"])
    references = [row.numbers["reference"] for row in rows if "reference" in row.numbers]
    if references:
        yield _reference_table(references)
    rates = [numbers for row in rows for numbers in row.numbers["rows"]]
    if not rates:
        return
    threads = ", ".join(dict.fromkeys(str(row.numbers["threads"]) for row in rows))
    yield _rates_table(rates, threads)
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


def _reference_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    title = "update beside a plain torch loop, CPU time of one thread"
    table = Table("", "plain loop", "ours, ms", "plain loop, ms", "times as fast", title=title)
    for row in rows:
        loop = "torch.compile" if row["compiled"] else "not compiled"
        times = [f"{row[name]:.3g}" for name in ("ours_ms", "reference_ms", "speed_up")]
        table.add_row(row["what"], loop, *times)
    return table


def _device_tables(numbers: Mapping[str, Any]) -> Iterable[Table]:
    ceilings = ", ".join(f"{name} {rate / 1e3:.3g}" for name, rate in numbers["ceilings"].items())
    title = f"{numbers['device']}: TFLOP/s of large products: {ceilings}"
    table = Table("update", "ms", "GFLOP", "share of the ceiling", "launches", "waits", title=title)
    for row in numbers["updates"]:
        counts = [f"{row[name]:.4g}" for name in ("launches", "waits")]
        table.add_row(row["mode"], f"{row['ms']:.3g}", f"{row['gflop']:.4g}", f"{row['share']:.1%}", *counts)
    yield table
    table = Table("", "a second")
    for name in ("decide", "sampling"):
        table.add_row(numbers[name]["what"], f"{numbers[name]['per_second']:.3g}")
    yield table


def _span(values: Sequence[float], form: str) -> str:
    middle, low, high = (form.format(v) for v in values)
    return f"{middle} ({low} … {high})"
