"""The functions of :mod:`agents.rllib` that start nothing, with every wrong value for every argument."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.public_api import Call
from tests.fuzz.test_public_api import check

pytest.importorskip("ray")


def test_algorithms_and_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.rllib.algorithms.ppo import PPOConfig

    from agents.rllib import CheckpointPlayer, algorithm_config, independent, restore, shared

    monkeypatch.chdir(tmp_path)
    environment = {"config": PPOConfig(), "env": "marca_env/Recommender-v0", "env_config": None}
    check(
        [
            Call("algorithm_config", algorithm_config, {"algo": "QMIX"}),
            Call("independent", independent, environment, ("config", "env_config")),
            Call("shared", shared, environment, ("config", "env_config")),
            Call("restore", restore, {"path": "nowhere", "placement": None, "trust": False}),
            Call("CheckpointPlayer", CheckpointPlayer, {"path": "nowhere", "env_config": None, "seed": 0}),
        ]
    )
