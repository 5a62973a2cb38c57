"""Terminal output of a training: a line before, a bar with return and loss during, a few lines after."""

from __future__ import annotations

import logging
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.training.trials import Trial, TrialOutcome
from marca_env.utils.console import make_console
from marca_env.utils.progress import track_progress

COUNTABLE = ("training_iteration", "env_steps", "gradient_steps", "time_total_s")
"""Stopping criteria that a bar can count up to."""
LABELS = {
    "training_iteration": "iterations",
    "env_steps": "env steps",
    "gradient_steps": "gradient steps",
    "skipped_updates": "skipped updates",
    "episode_return_mean": "return",
    "loss": "loss",
    "td_error": "TD error",
    "q_tot": "Q_tot",
    "grad_norm": "gradient norm",
    "time_total_s": "seconds",
}


def silence_libraries() -> None:
    """Silence deprecation warnings and log lines of Ray and RLlib below errors."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", module=r"gymnasium|ray|google|tensorboardX")
    import agents.rllib  # noqa: F401  importing RLlib sets its log levels: set ours after it

    for name in ("ray", "ray.rllib", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


def print_start(trial: Trial, out: Path, *, resume: Path | None = None, done: int = 0) -> None:
    """Print what begins, so that a wrong default is seen before the training is paid for.

    Args:
        trial: the run.
        out: its folder.
        resume: run or checkpoint that is continued.
        done: iterations of that run so far.
    """
    limits = ", ".join(f"{name} ≥ {format_number(limit)}" for name, limit in trial.stop.items())
    what = f"continuing {resume} after iteration {done}" if resume else f"training {trial.run} on {trial.where}"
    print(f"{what} until {limits}; in {out}", flush=True)


@contextmanager
def show_progress(label: str, stop: Mapping[str, float]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show progress; yields a function that takes the numbers of each iteration."""
    name = next((n for n in COUNTABLE if n in stop), None)
    with track_progress(label) as tell:

        def report(numbers: dict[str, Any]) -> None:
            done = numbers.get(name or "training_iteration", 0)
            limit = None if name is None else int(stop[name])
            words = [f"{_label(n, numbers)} {numbers[n]:.4g}" for n in ("episode_return_mean", "loss") if n in numbers]
            if numbers.get("skipped_updates"):
                words.append(f"{numbers['skipped_updates']} updates skipped")
            tell(int(done if limit is None else min(done, limit)), limit, ", ".join(words))

        yield report


def print_outcome(outcome: TrialOutcome, out: Path) -> None:
    """Print the last numbers, the files of the run and the next command."""
    numbers = {name: value for name, value in outcome.numbers.items() if name != "team_reward" and "/" not in name}
    ordered = [*(n for n in LABELS if n in numbers), *(n for n in numbers if n not in LABELS)]
    rows = [{"what": _label(n, outcome.numbers), "value": format_number(numbers[n])} for n in ordered]
    make_console().print(results_table(rows, {"what": "", "value": ""}))
    print(f"checkpoint: {outcome.checkpoint}")
    if outcome.policy is not None:
        print(f"policy:     {outcome.policy}")
    print(f"numbers:    {out / 'progress.csv'} (tensorboard --logdir {out})")
    missing, folder = outcome.missing, shlex.quote(str(out))
    if missing is not None:
        print(f"not learnt: {missing.reason}")
    if outcome.interrupted:
        return
    if missing is None:
        print(f"next:       marca evaluate {folder}")
    else:
        lower = f" (or lower {missing.option} in a new run)" if missing.option else ""
        print(f"next:       marca train --resume {folder} --stop training_iteration={2 * missing.begins}{lower}")


def _label(name: str, numbers: Mapping[str, Any]) -> str:
    """Return the name of a number; a return says whether it is a mean or a sum over agents."""
    described = f" ({numbers['team_reward']})" if name == "episode_return_mean" and "team_reward" in numbers else ""
    return f"{LABELS.get(name, name.replace('_', ' '))}{described}"


def format_number(value: Any) -> str:
    """Format a number with thousands separators or four significant digits."""
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def results_table(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> Table:
    """Make a table of ``rows``.

    Args:
        rows: key → value.
        columns: key → heading; a column without any value is left out.
    """
    used = [key for key in columns if any(row.get(key) not in (None, "") for row in rows)]
    table = Table(show_header=any(columns.values()))
    for key in used:
        numeric = all(isinstance(row.get(key), (int, float, type(None))) for row in rows)
        table.add_column(columns[key], justify="right" if numeric else "left", overflow="fold", no_wrap=key == "name")
    for row in rows:
        table.add_row(*["–" if row.get(key) in (None, "") else format_number(row[key]) for key in used])
    return table
