"""Tables of policies on days of traffic: uplifts over the static policy, with intervals over seeds.

An uplift is paired: the sum of a policy over that of static on the same day with the same seed. The uplift of a seed is
its mean over the days. Seeds are independent (learners, calibration, requests and arrivals), so that intervals are over
seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from rich.table import Table
from scipy import stats

from benchmarks.evaluation.statistics import mean_interval
from benchmarks.suite.api import Row
from benchmarks.suite.published_tables import ONLINE

MEASURES = {
    "revenue": "revenue",
    "gmv": "GMV",
    "impressions": "impressions",
    "clicks": "clicks",
    "roi": "ROI",
    "ctr": "CTR",
}
PUBLISHED = {
    policy: tuple(map(float, cells[1:]))
    for policy, cells in zip(("dcaf", "rl-mpca", "marca-feedback", "marca-mpc"), ONLINE.rows, strict=True)
}
"""Uplifts in percent of the paper's online test, in the order of :data:`MEASURES`."""
Numbers = Mapping[tuple[str, str, int], Mapping[str, Any]]
"""(method, day, seed) → numbers."""


def by_case(rows: Sequence[Row]) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    """Return (method, day, seed) → numbers."""
    return {(row.case.method, row.case.task, row.case.seed): row.numbers for row in rows}


def uplifts(numbers: Numbers, method: str, measure: str, base: str = "static") -> np.ndarray:
    """Return the uplift of ``method`` over ``base``, (seeds, days), as a fraction; nan where one of them is missing."""
    days, seeds = days_of(numbers), seeds_of(numbers)
    missing: Mapping[str, Any] = {}

    def uplift(day: str, seed: int) -> float:
        value, base_value = (numbers.get((m, day, seed), missing).get(measure, np.nan) for m in (method, base))
        return float(value / base_value - 1)

    return np.array([[uplift(day, seed) for day in days] for seed in seeds])


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return mean and 95 % interval (Student's t) of ``values`` (seeds,); (mean, nan, nan) of fewer than two."""
    values = values[np.isfinite(values)]
    return (float(values.mean()) if len(values) else float("nan"), *mean_interval(values))


def days_of(numbers: Numbers) -> list[str]:
    """Return the days, in the order of the rows."""
    return list(dict.fromkeys(day for _, day, _ in numbers))


def seeds_of(numbers: Numbers) -> list[int]:
    """Return the seeds, sorted."""
    return sorted({seed for _, _, seed in numbers})


def policies_of(numbers: Numbers, bound: str) -> list[str]:
    """Return the policies without the bound, in the order of the rows."""
    return [method for method in dict.fromkeys(m for m, _, _ in numbers) if method != bound]


def _by_seed(values: np.ndarray) -> np.ndarray:
    """Return means over the days of a seed, (seeds, days) → (seeds,), without seeds that have no day."""
    return np.array([row[np.isfinite(row)].mean() for row in values if np.isfinite(row).any()])


def tables(rows: Sequence[Row], bound: str) -> Iterable[Table]:
    """Yield all tables for which there are rows."""
    numbers = by_case(rows)
    policies = policies_of(numbers, bound)
    if "static" in policies and len(policies) > 1:
        yield _uplift_table(numbers, policies)
        yield _significance(numbers, policies)
        yield _day_table(numbers, policies)
    if policies:
        yield _use_table(numbers, policies, bound)


def _table(title: str, first: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _uplift_table(numbers: Numbers, policies: Sequence[str]) -> Table:
    days, seeds = len(days_of(numbers)), len(seeds_of(numbers))
    title = f"uplift over static, percent: mean over days ({days}), 95 % over seeds ({seeds})"
    expected = len(policies) * days * seeds
    available = sum(method in policies for method, _, _ in numbers)
    if available < expected:
        title += f"; not comparable yet: {available} of {expected} rows"
    table = _table(title, "policy", MEASURES.values())
    for policy in policies:
        if policy != "static":
            table.add_row(policy, *(_percent(_by_seed(uplifts(numbers, policy, m))) for m in MEASURES))
    table.add_section()
    for policy in policies:
        if policy in PUBLISHED:
            table.add_row(f"{policy} (published, other data)", *(f"{x:+.2f}" for x in PUBLISHED[policy]))
    return table


def _percent(values: np.ndarray, digits: int = 1) -> str:
    mean, low, high = interval(100 * values)
    if not np.isfinite(mean):
        return "–"
    return f"{mean:+.{digits}f}" + ("" if np.isnan(low) else f" [{low:+.{digits}f}, {high:+.{digits}f}]")


def _significance(numbers: Numbers, policies: Sequence[str]) -> Table:
    """Return the revenue of each policy over that of the one before it, paired by day and seed."""
    table = _table(
        "revenue, each policy over the one above it, percent; paired by day and seed",
        "pair",
        ("mean [95 % over seeds]", "p (paired t over seeds)", "days and seeds won"),
    )
    for below, policy in pairwise(policies):
        gains = uplifts(numbers, policy, "revenue", below)
        seeds = _by_seed(gains)
        p = f"{stats.ttest_1samp(seeds, 0.0).pvalue:.2g}" if len(seeds) > 1 else "–"
        finite = gains[np.isfinite(gains)]
        table.add_row(
            f"{policy} over {below}",
            _percent(seeds, digits=2),
            p,
            f"{(finite > 0).sum()} of {len(finite)}",
        )
    return table


def _day_table(numbers: Numbers, policies: Sequence[str]) -> Table:
    others = [p for p in policies if p != "static"]
    table = _table("revenue over static by day, percent; mean and 95 % over seeds", "day", others)
    columns = [uplifts(numbers, policy, "revenue") for policy in others]
    for k, day in enumerate(days_of(numbers)):
        table.add_row(day, *(_percent(values[:, k][np.isfinite(values[:, k])]) for values in columns))
    return table


def _use_table(numbers: Numbers, policies: Sequence[str], bound: str) -> Table:
    clusters = list(next(n["mu"] for (m, _, _), n in numbers.items() if m != bound))
    columns = ["of the bound", *(f"{symbol} {c}" for c in clusters for symbol in ("μ", "ν")), "degraded", "lost"]
    table = _table("shares of the clairvoyant bound; μ and ν of the budgets, percent; means", "policy", columns)
    for policy in policies:
        rows = [row for (method, _, _), row in numbers.items() if method == policy]
        share = 1 + _by_seed(uplifts(numbers, policy, "revenue", bound))
        cells = [f"{np.mean([row[k][c] for row in rows]):.{d}%}" for c in clusters for k, d in (("mu", 1), ("nu", 2))]
        rest = [f"{np.mean([row[k] for row in rows]):.2%}" for k in ("degraded", "lost")]
        table.add_row(policy, f"{share.mean():.1%}" if len(share) else "–", *cells, *rest)
    return table
