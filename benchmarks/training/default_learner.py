"""Value functions for the simulated day: trained once in the fitted environment, then kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from marca_env.scenario.scenario import Scenario
from marca_env.utils.progress import count_progress

KEPT = Path("results/policies")
ITERATIONS = 80
"""Of 2,000 requests and 50 gradient steps each: two or three minutes on two cores."""


def default_checkpoint(algo: str, scenario: Scenario, iterations: int = ITERATIONS) -> str:
    """Folder of a policy of ``algo`` for ``scenario``: the one kept in ``results/policies``, or trained now.

    It learns online in the environment of the fitted models, whose expected revenue is far less noisy than a log's.
    """
    out = KEPT / f"{scenario.name}-{algo}-{iterations}"
    kept = out / f"checkpoint_{iterations:06d}" / "policy"
    if (kept / "policy.json").is_file():
        return str(kept)
    shutil.rmtree(out, ignore_errors=True)  # what an interrupted training left
    from agents.rllib import online_train

    with count_progress(f"Training {algo} (kept in {out})", iterations) as advance:

        def report(_numbers: dict[str, Any]) -> None:
            advance()

        return str(
            online_train(out, algo=algo, env_config={"scenario": scenario.name}, iterations=iterations, report=report)
        )
