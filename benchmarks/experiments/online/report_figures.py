"""Figures of policies on days of traffic: uplifts over the static policy, and performance profiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.experiments.online.report_tables import (
    PUBLISHED,
    Numbers,
    by_case,
    days_of,
    interval,
    policies_of,
    seeds_of,
    uplifts,
)
from benchmarks.plotting.curves import profile_figure
from benchmarks.plotting.style import METHOD_COLOURS, new_figure, open_axes, save_figure
from benchmarks.suite.api import Row


def figures(rows: Sequence[Row], folder: Path, bound: str) -> dict[str, Path]:
    """Draw ``uplift.png`` and ``profiles.png``.

    The former shows the revenue over static of every policy on every day, mean and 95 % interval over seeds; the latter
    the share of days and seeds above each share of the clairvoyant bound.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    numbers = by_case(rows)
    others = [p for p in policies_of(numbers, bound) if p != "static"]
    if not others or ("static" not in policies_of(numbers, bound)):
        return {}
    days = days_of(numbers)
    drawing = new_figure(figsize=(max(6.5, 2.5 + 1.3 * len(days)), 4.2))
    axis = drawing.subplots()
    for k, policy in enumerate(others):
        values = uplifts(numbers, policy, "revenue")
        means = np.array([interval(100 * values[:, d]) for d in range(len(days))])  # (days, 3)
        position = np.arange(len(days)) + 0.16 * (k - (len(others) - 1) / 2)
        errors = np.nan_to_num(np.abs(means[:, 1:] - means[:, :1])).T
        colour = METHOD_COLOURS.get(policy)
        axis.errorbar(position, means[:, 0], errors, fmt="o", color=colour, capsize=2, markersize=4, label=policy)
        if policy in PUBLISHED:
            axis.axhline(PUBLISHED[policy][0], color=colour, linewidth=0.8, linestyle=":")
    axis.axhline(0.0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(days)), [d.replace(" ", "\n", 1) for d in days], fontsize=8)
    axis.set_xlim(-0.5, len(days) - 0.5)
    axis.set_ylabel("revenue over static, %")
    axis.set_title(
        f"mean and 95 % over seeds ({len(seeds_of(numbers))}); dotted: published, other data", loc="left", fontsize=9
    )
    open_axes(axis)
    drawing.legend(loc="outside lower center", ncols=len(others), frameon=False)
    save_figure(drawing, folder / "uplift.png")
    return {"Revenue over the static rule, by day": folder / "uplift.png"} | _profiles(numbers, folder, bound)


def _profiles(numbers: Numbers, folder: Path, bound: str) -> dict[str, Path]:
    """Draw ``profiles.png`` from the seeds that have all days; nothing if a policy has no such seed."""
    shares = {policy: 1 + uplifts(numbers, policy, "revenue", bound) for policy in policies_of(numbers, bound)}
    complete = {policy: values[np.isfinite(values).all(1)] for policy, values in shares.items()}
    if not all(len(values) for values in complete.values()):
        return {}
    path = profile_figure(complete, "revenue as a share of the clairvoyant bound", folder / "profiles.png")
    return {"Performance profiles over days and seeds": path}
