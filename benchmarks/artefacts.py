"""Loading what the experiments run on, with progress shown where it takes time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from marca_env.cost_map import CostMap
from marca_env.outcomes import OutcomeTable, outcome_table
from marca_env.scenario import Scenario


@contextmanager
def progress(description: str, total: int) -> Iterator[Any]:
    """A bar on a terminal, a line every tenth elsewhere; yields ``advance(n=1)``."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(description, total=total)
            yield lambda n=1: bar.advance(task, n)
        return
    done, told = 0, -1

    def advance(n: int = 1) -> None:
        nonlocal done, told
        done += n
        tenth = 10 * done // max(total, 1)
        if tenth > told:
            told = tenth
            console.print(f"{description}: {done}/{total}", highlight=False)

    yield advance


def outcomes_with_progress(scenario: Scenario, n: int, seed: int) -> OutcomeTable:
    """:func:`marca_env.outcomes.outcome_table`, from its cache or computed with a bar."""
    last = 0
    with progress(f"Evaluating all joint actions of {n} requests", n) as advance:

        def on_progress(done: int, _total: int) -> None:
            nonlocal last
            advance(done - last)
            last = done

        return outcome_table(scenario, n, seed, progress=on_progress)


def load_cost_map(scenario: Scenario, path: str | Path | None = None) -> CostMap:
    """Measured costs from a cost log; by default the one shipped for the scenario."""
    from marca_env.engine import shipped_folder
    from marca_env.logs import read_cost_log

    log = Path(path) if path else shipped_folder(scenario.name) / "cost_log.csv"
    return CostMap.from_log(scenario, read_cost_log(log))
