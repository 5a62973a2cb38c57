"""Cases of the experiments that train from the log: the same budget and the same evaluation for all methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.offline.offline_runs import REFERENCES, REQUESTS, run_offline, score_reference
from benchmarks.suite.api import Case

SEEDS = (1, 2, 3, 4, 5)
"""None of these trains in the search for the settings."""
BUDGET = {"updates": 1000, "batch": 512}
QUICK_BUDGET = {"updates": 40, "batch": 256}
QUICK_REQUESTS = 60
VALIDATE_EVERY = 100
"""Updates between validations."""


def offline_case(method: str, seed: int, settings: Mapping[str, Any], *, quick: bool, task: str = "") -> Case:
    """Return a case with the budget and the evaluation that all methods have."""
    config = {"settings": dict(settings), "requests": QUICK_REQUESTS if quick else REQUESTS}
    return Case(method, seed, task=task, budget=QUICK_BUDGET if quick else BUDGET, config=config)


def measure_offline(case: Case) -> dict[str, Any]:
    """Train and evaluate; see :func:`benchmarks.offline.offline_runs.run_offline`."""
    if case.method in REFERENCES:
        return {"test": score_reference(case.method, case.seed, case.config["requests"])}
    return run_offline(
        case.method,
        case.seed,
        settings=case.config["settings"],
        requests=case.config["requests"],
        validate_every=VALIDATE_EVERY,
        **case.budget,
    )
