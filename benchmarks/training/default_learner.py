"""Default value functions of the simulated day: trained once in the fitted environment, then reused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from agents.policy.checkpoints import checkpoints_in
from marca_env.scenario.scenario import Scenario, presets
from marca_env.utils.errors import InputError
from marca_env.utils.files import lock_output
from marca_env.utils.model_files import DESCRIPTION, WEIGHTS
from marca_env.utils.progress import count_progress

POLICIES = Path("results/policies")
ITERATIONS = 80
"""Iterations of 2,000 requests and 50 gradient steps: two or three minutes on two cores."""


def default_checkpoint(algo: str, scenario: Scenario, iterations: int = ITERATIONS) -> str:
    """Return the folder of a policy of ``algo`` for ``scenario``, from ``results/policies`` or trained now.

    The policy learns online in the environment of the fitted models: expected revenue is far less noisy than a log's.
    A scenario from a folder of `marca fit` gets a policy for the models in that folder, trained again after each fit.
    A policy decides for single requests, so it learns from those of a scenario whose episodes are windows or fleets.

    Raises:
        InputError: such a scenario that is not a preset.
    """
    scenario = of_single_requests(scenario)
    out = POLICIES / f"{_scenario_key(scenario)}-{algo}-{iterations}"
    policy = out / f"checkpoint_{iterations:06d}" / "policy"
    if (policy / "policy.json").is_file():
        return str(policy)
    from agents.rllib import online_train

    with lock_output(out), count_progress(f"Training {algo} (saved in {out})", iterations) as advance:
        for part in checkpoints_in(out):  # left by an interrupted training
            shutil.rmtree(part, ignore_errors=True)

        def report(_numbers: dict[str, Any]) -> None:
            advance()

        config = {"scenario": _readable(scenario)}
        return str(online_train(out, algo=algo, env_config=config, iterations=iterations, report=report))


def of_single_requests(scenario: Scenario) -> Scenario:
    """Return the scenario with episodes of one request, whose agents are the stages; it has the same models.

    Raises:
        InputError: the scenario was read from a file and has other episodes.
    """
    if scenario.window is None and scenario.agent_kind == "stage":
        return scenario
    if scenario.source is not None:
        raise InputError(
            f"{scenario.source}: policies of a simulated day learn from single requests; remove window and agent_kind, "
            "or pass a policy with --checkpoint"
        )
    return scenario.replace(name=f"{scenario.name}-requests", window=None, agent_kind="stage")


def _readable(scenario: Scenario) -> str:
    """Return what reads the scenario again; one that was made in Python is written first."""
    if scenario.source is not None or scenario.name in presets():
        return scenario.load_name
    path = POLICIES / f"{_scenario_key(scenario)}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    scenario.save(path)
    return str(path)


def _scenario_key(scenario: Scenario) -> str:
    """Return the name of a preset; for another scenario add a hash of what policies depend on.

    These are the scenario and the models of its folder, without name and path: a folder that was moved, or a scenario
    that was renamed, keeps its policies.
    """
    if scenario.source is None and scenario.name in presets():
        return scenario.name
    described = {name: value for name, value in scenario.to_dict().items() if name != "name"}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    if scenario.home is None:
        return f"own-{digest.hexdigest()[:10]}"
    files = [
        "population.parquet",
        *(f"{m}/{f}" for m in ("cost_model", "revenue_model") for f in (DESCRIPTION, WEIGHTS)),
    ]
    for name in files:
        path = scenario.home / name
        digest.update(name.encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return f"own-{digest.hexdigest()[:10]}"
