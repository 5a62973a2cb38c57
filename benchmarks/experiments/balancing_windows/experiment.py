"""Model-predictive control where the mix of requests changes: jump of the load on the first and on the second day.

The requests are another sample than that on which the system model was fitted, so the model is off in every window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from benchmarks.days.balancer_evaluation import JUDGE_SEED, BalancerEvaluation
from benchmarks.days.balancers import SECOND_DAY
from benchmarks.days.calibration import Calibration
from benchmarks.suite.api import Case, Row, rows_by_method
from marca_env.models.engine import Engine
from marca_env.traffic.days import generated
from marca_env.utils.units import MINUTES_PER_DAY

SEEDS = (0, 1, 2, 3, 4)
METHODS = ("feedback", "mpc", SECOND_DAY)
WINDOWS = 6
"""Windows of a day in the default scenario."""
AFTER = 10
"""Minutes after a change over which the excess load is averaged."""
FULL, QUICK = {"requests": 600, "days": 4, "epochs": 150}, {"requests": 60, "days": 1, "epochs": 5}


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return a day of every method and seed."""
    budget = QUICK if quick else FULL
    return [Case(method, seed, task="smooth day", budget=budget) for seed in seeds for method in METHODS]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Replay a generated day under the method.

    Returns:
        Mean over the changes of the window, in fractions of the budget: ``jump`` (change of the load within the minute,
        of the cluster where it is largest), ``peak`` (load beyond the budget in this minute) and ``after`` (the same
        over :data:`AFTER` minutes and all clusters); ``mu`` and ``nu`` of the whole day.
    """
    calibration = _calibration(case.budget["days"], case.budget["epochs"])
    pool = calibration.engine.pool(case.budget["requests"], seed=JUDGE_SEED)
    day = generated("smooth", calibration.scenario, case.seed)
    minutes, scores = BalancerEvaluation(calibration, day, pool, case.seed).run(case.method)
    changes = loads_at_changes(minutes, calibration.scenario.cluster_names)
    return {**changes, "mu": scores["mu"]["all"], "nu": scores["nu"]["all"]}


def loads_at_changes(minutes: pd.DataFrame, clusters: Sequence[str]) -> dict[str, float]:
    """Return ``jump``, ``peak`` and ``after`` of a replayed day; see :func:`measure`."""
    load, budget = (minutes[[f"{name}_{c}" for c in clusters]].to_numpy() for name in ("load", "budget"))
    used = load / budget  # (T,G)
    changes = np.arange(1, WINDOWS) * MINUTES_PER_DAY // WINDOWS
    later = np.stack([used[k : k + AFTER] for k in changes])
    return {
        "jump": float(np.abs(used[changes] - used[changes - 1]).max(1).mean()),
        "peak": float(np.maximum(used[changes] - 1, 0).max(1).mean()),
        "after": float(np.maximum(later - 1, 0).mean()),
    }


@lru_cache(maxsize=1)
def _calibration(days: int, epochs: int) -> Calibration:
    return Calibration(Engine.load("default"), days=days, epochs=epochs)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return the means over the seeds."""
    table = Table(title="at the changes of the time window")
    for column in ("method", "seeds", "jump", "beyond the budget", f"over {AFTER} minutes", "μ", "ν"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, ours in rows_by_method(rows).items():
        means = [float(np.mean([row.numbers[k] for row in ours])) for k in ("jump", "peak", "after", "mu", "nu")]
        table.add_row(method, str(len(ours)), *(f"{x:.2%}" for x in means))
    yield table
