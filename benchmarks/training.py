"""Value functions for the simulated day: trained once from the shipped request log, then kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.artefacts import progress
from marca_env.engine import shipped_folder
from marca_env.errors import InputError
from marca_env.scenario import Scenario

KEPT = Path("results/policies")
ITERATIONS = 40
"""Of 50 gradient steps each: about a minute on two cores."""


def default_checkpoint(algo: str, scenario: Scenario) -> str:
    """Folder of a policy of ``algo`` for ``scenario``: the one kept in ``results/policies``, or trained now.

    Raises:
        InputError: no request log ships for the scenario.
    """
    out = KEPT / f"{scenario.name}-{algo}"
    found = sorted(out.glob("checkpoint_*/policy/policy.json"))
    if found:
        return str(found[-1].parent)
    log = shipped_folder(scenario.name) / "requests.parquet"
    if not log.is_file():
        raise InputError(
            f"scenario {scenario.name!r} ships no request log; train with `marca train --offline LOG` and give the "
            "folder as --checkpoint"
        )
    from agents.rllib import offline_train

    with progress(f"Training {algo} (kept in {out})", ITERATIONS) as advance:

        def report(_numbers: dict[str, Any]) -> None:
            advance()

        return str(offline_train(log, out, algo=algo, scenario=scenario.name, iterations=ITERATIONS, report=report))
