"""Default value functions of the simulated day: trained once in the fitted environment, then reused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from marca_env.scenario.scenario import Scenario
from marca_env.utils.progress import count_progress

POLICIES = Path("results/policies")
ITERATIONS = 80
"""Iterations of 2,000 requests and 50 gradient steps: two or three minutes on two cores."""


def default_checkpoint(algo: str, scenario: Scenario, iterations: int = ITERATIONS) -> str:
    """Return the folder of a policy of ``algo`` for ``scenario``, from ``results/policies`` or trained now.

    The policy learns online in the environment of the fitted models: expected revenue is far less noisy than a log's.
    """
    out = POLICIES / f"{scenario.name}-{algo}-{iterations}"
    policy = out / f"checkpoint_{iterations:06d}" / "policy"
    if (policy / "policy.json").is_file():
        return str(policy)
    shutil.rmtree(out, ignore_errors=True)  # left by an interrupted training
    from agents.rllib import online_train

    with count_progress(f"Training {algo} (saved in {out})", iterations) as advance:

        def report(_numbers: dict[str, Any]) -> None:
            advance()

        return str(
            online_train(out, algo=algo, env_config={"scenario": scenario.name}, iterations=iterations, report=report)
        )
