"""AWRQ-Mixer without each of its parts, AW, SMC and VGCA: scores, convergence and variance of the gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.experiments.ranking import SEEDS, case_of, measure
from benchmarks.suite import Case, Row

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["SEEDS", "cases", "figures", "measure", "tables"]

METHOD = "AWRQMixer"
PARTS: dict[str, dict[str, Any]] = {
    "full": {},
    "without AW": {"adaptive_weighting": False},
    "without SMC": {"softplus_mixer": False},
    "without VGCA": {"variance_credit": False},
    "without all three": {"adaptive_weighting": False, "softplus_mixer": False, "variance_credit": False},
    "without the agents' own losses": {"adaptive_weighting": False, "variance_credit": False, "agent_loss": 0.0},
}
"""Variant → switches turned off. The last goes beyond the paper's: AW and VGCA act through the agents' own losses."""
MEANINGLESS = {"adaptive_weighting": "weighting_level", "variance_credit": "credit"}
"""Switch → the option that says nothing once it is off."""
WINDOW = 25
"""Reports, each of ten updates, within which the variance is taken."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Every variant with every seed, with the settings that the ranking has."""
    from benchmarks.offline_runs import settings_of

    chosen = list(PARTS)[:2] if quick else PARTS
    found = []
    for variant in chosen:
        dropped = {option for switch, option in MEANINGLESS.items() if switch in PARTS[variant]}
        kept = {name: value for name, value in settings_of(METHOD).items() if name not in dropped}
        found += [case_of(METHOD, seed, {**kept, **PARTS[variant]}, quick=quick, task=variant) for seed in seeds]
    return found


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Scores; then convergence and gradients."""
    from benchmarks.offline_tables import score_table, training_table

    yield score_table(rows, "ablation", "variant")
    yield training_table(rows, WINDOW)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Validation curves."""
    from benchmarks.offline_tables import curves_figure

    return {"Variants during training": curves_figure(rows, folder / "curves.png")}
