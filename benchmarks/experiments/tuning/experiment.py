"""Settings of the ranking's methods: random search through Ray Tune, the same budget for each, on validation rows.

The best trials of every method compete again in finals, with other seeds. ``--methods my_module.MyQMIX`` searches for a
configuration of your own that derives from a preset's, in the preset's space; the options that it sets itself stay as
they are. Put the settings that win into its ``defaults``, so that the ranking uses them; those of presets are in
``benchmarks/offline/tuned.yaml``. A search that has ended keeps its state in the folder of the records: remove that
state, too, after a change of code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_high
from typing import Any

import yaml
from rich.table import Table

from benchmarks.experiments.tuning.spaces import read_spaces, search_space
from benchmarks.offline.offline_runs import METHODS, offline_config
from benchmarks.suite.api import Case, Row
from marca_env.utils.files import atomic_path
from marca_env.utils.yaml import read_mapping

SEEDS = (0,)
SEARCH = ("trials", "updates", "batch")
"""The part of the budget that belongs to the search."""
ALONE = True
"""Ray Tune distributes the trials itself."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS, methods: Sequence[str] | None = None) -> list[Case]:
    """Return a search for each method.

    Args:
        quick: a small run.
        seeds: of the searches.
        methods: presets, or the dotted paths of configurations; ``None``: all methods of the ranking.

    Raises:
        InputError: a method is unknown, or has nothing left to search.
    """
    spaces = read_spaces()
    budget = {name: spaces[name] for name in (*SEARCH, "finals")}
    if quick:
        budget |= {"trials": 2, "updates": 20, "batch": 128, "finals": {"entrants": 2, "seeds": [100], "updates": 20}}
    method_names = methods or (METHODS[-2:-1] if quick else METHODS)
    return [
        Case(method, seed, budget=budget, config=search_space(method, spaces))
        for method in method_names
        for seed in seeds
    ]


def check(case: Case) -> None:
    """Check that the method learns from the log with the settings of its first trial.

    Raises:
        InputError: it does not.
    """
    offline_config(case.method, case.seed, case.budget["updates"], case.config["start"], case.budget["batch"])


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Search, and collect the best settings in ``winners.yaml``, in the form of ``benchmarks/offline/tuned.yaml``."""
    from benchmarks.experiments.tuning.search import best_trials, finals, search

    config, budget = case.config, {name: case.budget[name] for name in SEARCH}
    search_folder = folder / replace(case, budget=budget).key  # the same for other finals
    trials = search(case.method, config["space"], config["start"], seed=case.seed, folder=search_folder, **budget)
    final = dict(case.budget["finals"])
    entrants = best_trials(trials, final.pop("entrants"))
    results = finals(case.method, entrants, batch=budget["batch"], folder=folder / case.key, **final)
    write_winner(folder / "winners.yaml", case.method, results["best"])
    return {"trials": trials, **results}


def write_winner(path: Path, method: str, best: dict[str, Any]) -> None:
    """Add the settings of a method to those of the others in the file."""
    winners = read_mapping(path) if path.exists() else {}
    winners[method] = rounded(best)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_text(
            yaml.safe_dump(winners, default_flow_style=None, sort_keys=False, width=120), encoding="utf-8"
        )


def rounded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with three significant digits, sorted by name."""
    return {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in sorted(settings.items())}


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return the trials and finals of each method and the settings that won; in the caption, those of users as code."""
    own = [f"add to defaults of {r.case.method}: {rounded(r.numbers['best'])}" for r in rows if "." in r.case.method]
    title = "r_s on validation rows, by the ensemble; of the finals, of every seed"
    table = Table(title=title, caption="\n".join(own) or None)
    left = ("method", "finals", "settings of the winner")
    for column in ("method", "trials", "CPU s", "first trial", "median", "best", *left[1:]):
        table.add_column(column, justify="left" if column in left else "right")
    for row in rows:
        trials, last = row.numbers["trials"], row.numbers["finals"]
        scores = [trial["spearman_model"] for trial in trials]
        settings = ", ".join(f"{k}={_short(v)}" for k, v in sorted(row.numbers["best"].items()))
        cpu_seconds = sum(run["cpu_seconds"] for run in [*trials, *last])  # also of a resumed search
        numbers = [f"{x:.4f}" for x in (scores[0], median_high(scores), max(scores))]
        table.add_row(row.case.method, str(len(scores)), f"{cpu_seconds:,.0f}", *numbers, _finalists(last), settings)
    yield table


def _finalists(runs: Sequence[dict[str, Any]]) -> str:
    """Return ``0.97 0.98; 0.82 0.96``: the scores of an entrant's seeds, then those of the next one."""
    entrants: dict[str, list[str]] = {}
    for run in runs:
        entrants.setdefault(str(run["settings"]), []).append(f"{run['spearman_model']:.3f}")
    return "; ".join(" ".join(scores) for scores in entrants.values())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
