"""Settings of the ranking's methods: random search through Ray Tune, the same budget for each, on validation rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.offline_runs import METHODS
from benchmarks.suite import Case, Row

if TYPE_CHECKING:
    from rich.table import Table

SEEDS = (0,)
ALONE = True
"""Tune spreads the trials itself."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """A search for each method."""
    from benchmarks.search import read_spaces

    spaces = read_spaces()
    budget = {name: spaces[name] for name in ("trials", "updates", "batch")}
    if quick:
        budget |= {"trials": 2, "updates": 20, "batch": 128}
    found = []
    for method in METHODS[-2:-1] if quick else METHODS:
        start = {**spaces["fixed"].get(method, {}), **spaces["start"]}
        config = {"space": spaces["methods"][method], "start": start}
        found += [Case(method, seed, budget=budget, config=config) for seed in seeds]
    return found


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Search; ``winners.yaml`` in the folder collects the best settings, as ``benchmarks/tuned.yaml`` holds them."""
    from benchmarks.search import search

    config, budget = case.config, case.budget
    home = folder / case.key
    found = search(case.method, config["space"], config["start"], seed=case.seed, folder=home, **budget)
    write_winner(folder / "winners.yaml", case.method, found["best"])
    return found


def write_winner(path: Path, method: str, best: dict[str, Any]) -> None:
    """Add the settings of a method to those of the others."""
    import yaml

    from benchmarks.yaml_files import read_mapping
    from marca_env.saving import atomic_path

    known = read_mapping(path) if path.exists() else {}
    rounded = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in sorted(best.items())}
    known[method] = rounded
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_text(yaml.safe_dump(known, default_flow_style=None, sort_keys=False, width=120), encoding="utf-8")


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """The best trial of each method beside its first, and what it was."""
    from rich.table import Table

    table = Table(title="r_s on validation rows, by the ensemble")
    for column in ("method", "trials", "CPU s", "first trial", "median", "best", "settings of the best"):
        table.add_column(column, justify="left" if column in ("method", "settings of the best") else "right")
    for row in rows:
        scores = [trial["spearman_model"] for trial in row.numbers["trials"]]
        told = ", ".join(f"{k}={_short(v)}" for k, v in sorted(row.numbers["best"].items()))
        middle = sorted(scores)[len(scores) // 2]
        spent = sum(trial["cpu_seconds"] for trial in row.numbers["trials"])  # of a resumed one, too
        numbers = [f"{x:.4f}" for x in (scores[0], middle, max(scores))]
        table.add_row(row.case.method, str(len(scores)), f"{spent:,.0f}", *numbers, told)
    yield table


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
