"""Default value functions of the simulated day: trained once in the fitted environment, then reused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from marca_env.scenario.scenario import FILE as SCENARIO_FILE
from marca_env.scenario.scenario import Scenario
from marca_env.utils.model_files import DESCRIPTION, WEIGHTS
from marca_env.utils.progress import count_progress

POLICIES = Path("results/policies")
ITERATIONS = 80
"""Iterations of 2,000 requests and 50 gradient steps: two or three minutes on two cores."""


def default_checkpoint(algo: str, scenario: Scenario, iterations: int = ITERATIONS) -> str:
    """Return the folder of a policy of ``algo`` for ``scenario``, from ``results/policies`` or trained now.

    The policy learns online in the environment of the fitted models: expected revenue is far less noisy than a log's.
    A scenario from a folder of `marca fit` gets a policy for the models in that folder, trained again after each fit.
    """
    out = POLICIES / f"{_scenario_key(scenario)}-{algo}-{iterations}"
    policy = out / f"checkpoint_{iterations:06d}" / "policy"
    if (policy / "policy.json").is_file():
        return str(policy)
    shutil.rmtree(out, ignore_errors=True)  # left by an interrupted training
    from agents.rllib import online_train

    with count_progress(f"Training {algo} (saved in {out})", iterations) as advance:

        def report(_numbers: dict[str, Any]) -> None:
            advance()

        source = scenario.name if scenario.home is None else str(scenario.home)
        return str(online_train(out, algo=algo, env_config={"scenario": source}, iterations=iterations, report=report))


def _scenario_key(scenario: Scenario) -> str:
    """Return the name of a preset; for a scenario with its own folder add a hash of the files that policies depend on.

    The folder's path is left out, so that a folder that was moved keeps its policies.
    """
    if scenario.home is None:
        return scenario.name
    digest = hashlib.sha256()
    files = [
        "population.parquet",
        *(f"{m}/{f}" for m in ("cost_model", "revenue_model") for f in (DESCRIPTION, WEIGHTS)),
    ]
    for name in (SCENARIO_FILE, *files):
        path = scenario.home / name
        digest.update(name.encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return f"{scenario.name}-{digest.hexdigest()[:10]}"
