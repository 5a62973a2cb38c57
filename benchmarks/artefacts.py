"""Loading what the experiments run on, with progress shown where it takes time."""

from __future__ import annotations

from pathlib import Path

from benchmarks.progress import tracked
from marca_env.cost_map import CostMap
from marca_env.outcomes import OutcomeTable, outcome_table
from marca_env.scenario import Scenario


def outcomes_with_progress(scenario: Scenario, n: int, seed: int) -> OutcomeTable:
    """:func:`marca_env.outcomes.outcome_table`, from its cache or computed with a bar."""
    with tracked(f"Evaluating all joint actions of {n} requests") as tell:
        return outcome_table(scenario, n, seed, progress=tell)


def load_cost_map(scenario: Scenario, path: str | Path | None = None) -> CostMap:
    """Measured costs from a cost log; by default the one shipped for the scenario."""
    from marca_env.engine import shipped_folder
    from marca_env.logs import read_cost_log

    log = Path(path) if path else shipped_folder(scenario.name) / "cost_log.csv"
    return CostMap.from_log(scenario, read_cost_log(log))
