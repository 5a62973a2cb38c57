"""A team that learns in one process needs no running ray, and learns the same with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from agents.rllib import restore, train
from agents.rllib.core.cluster import start_ray, start_ray_for
from agents.rllib.core.in_process import ObjectStore
from tests.helpers.dice_runs import learner_weights, make_config, same


def learn(out: Path, iterations: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Sample, learn, evaluate and save; return the weights and the metrics."""
    config = make_config().evaluation(evaluation_interval=1, evaluation_duration=8)
    algorithm, numbers = train(config, stop={"training_iteration": iterations}, out=out)
    weights = learner_weights(algorithm)[0]
    algorithm.stop()
    return weights, numbers


@pytest.mark.slow
def test_a_run_in_one_process_starts_no_ray_and_learns_as_with_one(tmp_path: Path) -> None:
    ray.shutdown()
    store, value = ObjectStore(), {"weights": 1.0}
    assert store.get(store.put(value)) is value
    weights, numbers = learn(tmp_path / "alone", 2)
    resumed = restore(tmp_path / "alone")
    assert not ray.is_initialized()
    assert same(learner_weights(resumed)[0], weights)
    resumed.stop()
    start_ray(num_cpus=1)
    reference = store.put(value)
    assert isinstance(reference, ray.ObjectRef)
    assert store.get(reference) == store.get([reference])[0] == store.get(value) == value
    with_ray, other = learn(tmp_path / "ray", 2)
    assert same(with_ray, weights)
    assert other["env_steps"] == numbers["env_steps"]


def test_an_algorithm_of_others_gets_a_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int | None] = []
    monkeypatch.setattr("agents.rllib.core.cluster.start_ray", started.append)
    start_ray_for(make_config())
    assert not started
    start_ray_for(make_config(), make_config(runners=2))
    others = make_config().copy(copy_frozen=False)
    others.needs_ray = True
    start_ray_for(others)
    assert started == [None, 1]
