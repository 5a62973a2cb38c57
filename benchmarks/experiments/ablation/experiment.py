"""AWRQ-Mixer without each of its parts, AW, SMC and VGCA: scores, convergence and variance of the gradient.

AW is adaptive weighting, SMC the softplus constraint of the mixer, VGCA the variance-guided credit assignment. The
settings are the tuned ones, and again with the agents' own losses at their weight in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.offline.offline_cases import SEEDS, measure_offline, offline_case
from benchmarks.offline.offline_runs import tuned_settings
from benchmarks.offline.offline_tables import curves_figure, difference_tables, score_table, training_table
from benchmarks.suite.api import Case, Row

METHOD = "AWRQMixer"
SWITCHES: dict[str, dict[str, Any]] = {
    "AW": {"adaptive_weighting": False},
    "SMC": {"softplus_mixer": False},
    "VGCA": {"variance_credit": False},
}
AT_ONE = "own losses at 1"
OWN_LOSSES = {"agent_loss": 1.0}
"""The weight of the agents' own losses in the paper. Tuning nearly turns them off, and AW and VGCA act only there."""
PARTS: dict[str, dict[str, Any]] = {
    "full": {},
    **{f"without {part}": switch for part, switch in SWITCHES.items()},
    "without all three": {name: off for switch in SWITCHES.values() for name, off in switch.items()},
    "without the agents' own losses": {**SWITCHES["AW"], **SWITCHES["VGCA"], "agent_loss": 0.0},
    AT_ONE: OWN_LOSSES,
    **{f"{AT_ONE}, without {part}": {**OWN_LOSSES, **switch} for part, switch in SWITCHES.items()},
}
"""Variant → options that differ from the tuned settings; the paper has the first four only."""
MEANINGLESS = {"adaptive_weighting": "weighting_level", "variance_credit": "credit"}
"""Switch → the option that has no effect once it is off."""
WINDOW = 25
"""Number of reports, each of ten updates, within which the variance is computed."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return every variant with every seed, with the settings of the ranking."""
    all_cases = []
    for variant in list(PARTS)[: 2 if quick else None]:
        dropped = {option for switch, option in MEANINGLESS.items() if switch in PARTS[variant]}
        settings = {name: value for name, value in tuned_settings(METHOD).items() if name not in dropped}
        settings |= PARTS[variant]
        all_cases += [offline_case(METHOD, seed, settings, quick=quick, task=variant) for seed in seeds]
    return all_cases


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train and evaluate a variant; see :func:`benchmarks.offline.offline_runs.run_offline`."""
    return measure_offline(case)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return the scores, the change by each part over common seeds, convergence and gradients."""
    yield score_table(rows, "ablation", "variant")
    for complete in ("full", AT_ONE):
        comparable = [row for row in rows if row.case.task.startswith(AT_ONE) == (complete == AT_ONE)]
        yield from difference_tables(comparable, f"{METHOD} {complete}")
    yield training_table(rows, WINDOW)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw the validation curves."""
    return {"Variants during training": curves_figure(rows, folder / "curves.png")}
