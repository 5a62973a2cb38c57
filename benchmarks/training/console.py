"""What people see of a training: a line before, a bar with return and loss during, a few lines after."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.training.trials import Outcome, Trial
from marca_env.utils.progress import tracked

WIDTH = 110
COUNTED = ("training_iteration", "env_steps", "gradient_steps", "time_total_s")
"""Limits that a bar can count up to."""
SHOWN = {
    "training_iteration": "iterations",
    "env_steps": "env steps",
    "gradient_steps": "gradient steps",
    "episode_return_mean": "return",
    "loss": "loss",
    "td_error": "TD error",
    "time_total_s": "seconds",
}


def console() -> Console:
    """For tables: as wide as the terminal, and of a fixed width elsewhere."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def quiet_libraries() -> None:
    """Ray's and RLlib's advice to their own developers is no use to those who train; errors stay."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", module=r"gymnasium|ray|google|tensorboardX")
    import agents.rllib  # noqa: F401  importing RLlib sets its levels: ours must come after

    for name in ("ray", "ray.rllib", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


def announce(trial: Trial, out: Path, *, resume: Path | None = None) -> None:
    """Say what begins, so that a wrong default is seen before its hour is spent."""
    limits = ", ".join(f"{name} ≥ {limit:g}" for name, limit in trial.stop.items())
    what = f"going on with {resume}" if resume else f"training {trial.run} on {trial.where}"
    print(f"{what} until {limits}; in {out}", flush=True)


@contextmanager
def reporting(label: str, stop: Mapping[str, float]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that takes each iteration's numbers and shows how far they are."""

    name = next((n for n in COUNTED if n in stop), None)
    with tracked(label) as tell:

        def report(numbers: dict[str, Any]) -> None:
            done = numbers.get(name or "training_iteration", 0)
            limit = None if name is None else int(stop[name])
            shown = [f"{SHOWN[n]} {numbers[n]:.4g}" for n in ("episode_return_mean", "loss") if n in numbers]
            tell(int(done if limit is None else min(done, limit)), limit, ", ".join(shown))

        yield report


def show_outcome(outcome: Outcome, out: Path) -> None:
    """The last numbers, where things are, and what to do next."""
    told = [f"{SHOWN[n]} {figure(outcome.numbers[n])}" for n in SHOWN if n in outcome.numbers]
    others = [f"{n} {figure(v)}" for n, v in outcome.numbers.items() if n not in SHOWN and "/" not in n]
    print("; ".join(told + others))
    print(f"checkpoint: {outcome.checkpoint}")
    if outcome.policy is not None:
        print(f"policy:     {outcome.policy}")
    print(f"numbers:    {out / 'progress.csv'} (tensorboard --logdir {out})")
    if not outcome.interrupted:
        print(f"next:       marca evaluate {out}")


def figure(value: Any) -> str:
    """A number as people write it."""
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def results_table(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> Table:
    """A table of ``rows``; ``columns`` key → heading, those that no row has left out."""
    used = [key for key in columns if any(row.get(key) not in (None, "") for row in rows)]
    view = Table(show_header=any(columns.values()))
    for key in used:
        numeric = all(isinstance(row.get(key), (int, float, type(None))) for row in rows)
        view.add_column(columns[key], justify="right" if numeric else "left", overflow="fold", no_wrap=key == "name")
    for row in rows:
        view.add_row(*["–" if row.get(key) in (None, "") else figure(row[key]) for key in used])
    return view
