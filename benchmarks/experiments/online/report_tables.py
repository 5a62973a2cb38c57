"""What days of traffic earn under several policies: uplifts over static with intervals over seeds, and their figure.

An uplift is paired: a policy's sum over static's on the same day with the same seed. A seed's uplift is the mean over
the days; seeds are independent (learners, commissioning, requests and arrivals), so that intervals are over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scipy import stats

from benchmarks.evaluation.statistics import mean_interval
from benchmarks.plotting.curves import profile_figure
from benchmarks.plotting.style import METHOD_COLOURS, new_figure, open_axes, save_figure
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
Found = Mapping[tuple[str, str, int], Mapping[str, Any]]
"""(method, day, seed) → numbers."""


def by_case(rows: Sequence[Row]) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    """The rows' numbers."""
    return {(row.case.method, row.case.task, row.case.seed): row.numbers for row in rows}


def uplifts(found: Found, method: str, measure: str, base: str = "static") -> np.ndarray:
    """(seeds, days) of ``method`` over ``base``, a share; nan where one of the two is missing."""
    days, seeds = _days(found), _seeds(found)
    nothing: Mapping[str, Any] = {}

    def one(day: str, seed: int) -> float:
        value, other = (found.get((m, day, seed), nothing).get(measure, np.nan) for m in (method, base))
        return float(value / other - 1)

    return np.array([[one(day, seed) for day in days] for seed in seeds])


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval (Student's t) of independent ``values`` (seeds,); (mean, nan, nan) of fewer than two."""
    values = values[np.isfinite(values)]
    return (float(values.mean()) if len(values) else float("nan"), *mean_interval(values))


def _days(found: Found) -> list[str]:
    return list(dict.fromkeys(day for _, day, _ in found))


def _seeds(found: Found) -> list[int]:
    return sorted({seed for _, _, seed in found})


def _policies(found: Found, bound: str) -> list[str]:
    return [method for method in dict.fromkeys(m for m, _, _ in found) if method != bound]


def _by_seed(values: np.ndarray) -> np.ndarray:
    """Means over the days that a seed has, (seeds, days) → (seeds,); of a seed without any, none."""
    return np.array([row[np.isfinite(row)].mean() for row in values if np.isfinite(row).any()])


def tables(rows: Sequence[Row], bound: str) -> Iterable[Any]:
    """All tables that the rows suffice for."""
    found = by_case(rows)
    policies = _policies(found, bound)
    if "static" in policies and len(policies) > 1:
        yield _uplift_table(found, policies)
        yield _significance(found, policies)
        yield _day_table(found, policies)
    if policies:
        yield _use_table(found, policies, bound)


def _table(title: str, first: str, columns: Iterable[str]) -> Any:
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _uplift_table(found: Found, policies: Sequence[str]) -> Any:
    title = f"uplift over static, percent: mean over days ({len(_days(found))}), 95 % over seeds ({len(_seeds(found))})"
    whole = len(policies) * len(_days(found)) * len(_seeds(found))
    there = sum(method in policies for method, _, _ in found)
    if there < whole:
        title += f"; not comparable yet: {there} of {whole} rows"
    table = _table(title, "policy", MEASURES.values())
    for policy in policies:
        if policy != "static":
            table.add_row(policy, *(_percent(_by_seed(uplifts(found, policy, m))) for m in MEASURES))
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


def _significance(found: Found, policies: Sequence[str]) -> Any:
    """Each policy against the one before it, revenue, paired by day and seed."""
    table = _table(
        "revenue, each policy over the one above it, percent; paired by day and seed",
        "pair",
        ("mean [95 % over seeds]", "p (paired t over seeds)", "days and seeds won"),
    )
    for below, policy in pairwise(policies):
        gains = uplifts(found, policy, "revenue", below)
        seeds = _by_seed(gains)
        p = f"{stats.ttest_1samp(seeds, 0.0).pvalue:.2g}" if len(seeds) > 1 else "–"
        known = gains[np.isfinite(gains)]
        table.add_row(
            f"{policy} over {below}",
            _percent(seeds, digits=2),
            p,
            f"{(known > 0).sum()} of {len(known)}",
        )
    return table


def _day_table(found: Found, policies: Sequence[str]) -> Any:
    others = [p for p in policies if p != "static"]
    table = _table("revenue over static by day, percent; mean and 95 % over seeds", "day", others)
    columns = [uplifts(found, policy, "revenue") for policy in others]
    for k, day in enumerate(_days(found)):
        table.add_row(day, *(_percent(values[:, k][np.isfinite(values[:, k])]) for values in columns))
    return table


def _use_table(found: Found, policies: Sequence[str], bound: str) -> Any:
    clusters = list(next(n["mu"] for (m, _, _), n in found.items() if m != bound))
    columns = ["of the bound", *(f"{symbol} {c}" for c in clusters for symbol in ("μ", "ν")), "degraded", "lost"]
    table = _table("shares of the clairvoyant bound; μ and ν of the budgets, percent; means", "policy", columns)
    for policy in policies:
        mine = [numbers for (method, _, _), numbers in found.items() if method == policy]
        share = 1 + _by_seed(uplifts(found, policy, "revenue", bound))
        cells = [f"{np.mean([n[k][c] for n in mine]):.{d}%}" for c in clusters for k, d in (("mu", 1), ("nu", 2))]
        rest = [f"{np.mean([n[k] for n in mine]):.2%}" for k in ("degraded", "lost")]
        table.add_row(policy, f"{share.mean():.1%}" if len(share) else "–", *cells, *rest)
    return table


def figures(rows: Sequence[Row], folder: Path, bound: str) -> dict[str, Path]:
    """``uplift.png``: revenue over static of every policy on every day, mean and 95 % interval over seeds;
    ``profiles.png``: share of days and seeds above each share of the clairvoyant bound.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    found = by_case(rows)
    others = [p for p in _policies(found, bound) if p != "static"]
    if not others or ("static" not in _policies(found, bound)):
        return {}
    days = _days(found)
    drawing = new_figure(figsize=(max(6.5, 2.5 + 1.3 * len(days)), 4.2))
    axis = drawing.subplots()
    for k, policy in enumerate(others):
        values = uplifts(found, policy, "revenue")
        told = np.array([interval(100 * values[:, d]) for d in range(len(days))])  # (days, 3)
        place = np.arange(len(days)) + 0.16 * (k - (len(others) - 1) / 2)
        errors = np.nan_to_num(np.abs(told[:, 1:] - told[:, :1])).T
        colour = METHOD_COLOURS.get(policy)
        axis.errorbar(place, told[:, 0], errors, fmt="o", color=colour, capsize=2, markersize=4, label=policy)
        if policy in PUBLISHED:
            axis.axhline(PUBLISHED[policy][0], color=colour, linewidth=0.8, linestyle=":")
    axis.axhline(0.0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(days)), [d.replace(" ", "\n", 1) for d in days], fontsize=8)
    axis.set_xlim(-0.5, len(days) - 0.5)
    axis.set_ylabel("revenue over static, %")
    axis.set_title(
        f"mean and 95 % over seeds ({len(_seeds(found))}); dotted: published, other data", loc="left", fontsize=9
    )
    open_axes(axis)
    drawing.legend(loc="outside lower center", ncols=len(others), frameon=False)
    save_figure(drawing, folder / "uplift.png")
    return {"Revenue over the static rule, by day": folder / "uplift.png"} | _profiles(found, folder, bound)


def _profiles(found: Found, folder: Path, bound: str) -> dict[str, Path]:
    """``profiles.png``, of the seeds that have all days; nothing where no seed has them under all policies."""
    shares = {policy: 1 + uplifts(found, policy, "revenue", bound) for policy in _policies(found, bound)}
    whole = {policy: values[np.isfinite(values).all(1)] for policy, values in shares.items()}
    if not all(len(values) for values in whole.values()):
        return {}
    path = profile_figure(whole, "revenue as a share of the clairvoyant bound", folder / "profiles.png")
    return {"Performance profiles over days and seeds": path}
