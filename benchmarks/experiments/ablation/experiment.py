"""AWRQ-Mixer without each of its parts, AW, SMC and VGCA: scores, convergence and variance of the gradient.

The settings are the tuned ones; then once more with the agents' own losses at the weight of the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.experiments.ranking.experiment import SEEDS, case_of, measure
from benchmarks.offline.offline_runs import settings_of
from benchmarks.offline.offline_tables import against, curves_figure, score_table, training_table
from benchmarks.suite.api import Case, Row

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["SEEDS", "cases", "figures", "measure", "tables"]

METHOD = "AWRQMixer"
SWITCHES: dict[str, dict[str, Any]] = {
    "AW": {"adaptive_weighting": False},
    "SMC": {"softplus_mixer": False},
    "VGCA": {"variance_credit": False},
}
AT_ONE = "own losses at 1"
OWN_LOSSES = {"agent_loss": 1.0}
"""Their weight in the paper. Tuning nearly turns them off, and AW and VGCA act through them alone."""
PARTS: dict[str, dict[str, Any]] = {
    "full": {},
    **{f"without {part}": switch for part, switch in SWITCHES.items()},
    "without all three": {name: off for switch in SWITCHES.values() for name, off in switch.items()},
    "without the agents' own losses": {**SWITCHES["AW"], **SWITCHES["VGCA"], "agent_loss": 0.0},
    AT_ONE: OWN_LOSSES,
    **{f"{AT_ONE}, without {part}": {**OWN_LOSSES, **switch} for part, switch in SWITCHES.items()},
}
"""Variant → what differs from the tuned settings; those beyond the first four are not the paper's."""
MEANINGLESS = {"adaptive_weighting": "weighting_level", "variance_credit": "credit"}
"""Switch → the option that says nothing once it is off."""
WINDOW = 25
"""Reports, each of ten updates, within which the variance is taken."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Every variant with every seed, with the settings that the ranking has."""
    chosen = list(PARTS)[:2] if quick else PARTS
    found = []
    for variant in chosen:
        dropped = {option for switch, option in MEANINGLESS.items() if switch in PARTS[variant]}
        kept = {name: value for name, value in settings_of(METHOD).items() if name not in dropped}
        found += [case_of(METHOD, seed, {**kept, **PARTS[variant]}, quick=quick, task=variant) for seed in seeds]
    return found


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Scores; what each part changes, seed by seed; convergence and gradients."""
    yield score_table(rows, "ablation", "variant")
    for whole in ("full", AT_ONE):
        alike = [row for row in rows if row.case.task.startswith(AT_ONE) == (whole == AT_ONE)]
        yield from against(alike, f"{METHOD} {whole}")
    yield training_table(rows, WINDOW)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Validation curves."""
    return {"Variants during training": curves_figure(rows, folder / "curves.png")}
