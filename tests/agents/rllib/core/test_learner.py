"""The learner: optimizers, metrics, target networks, and equal weights of data-parallel learners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray
import torch

from agents.rllib import CONFIGS
from agents.rllib.core.cluster import start_ray
from agents.rllib.core.learner import METRICS

GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"
SMALL = {"gru": None, "hidden": (8,), "updates_per_iteration": 3, "learning_starts": 8}
SMALL |= {"train_batch_size_per_learner": 8, "reward_scale": 2.0, "epsilon": 1.0}


@pytest.fixture(scope="module", autouse=True)
def running_ray() -> Iterator[None]:
    """Start a ray with four CPUs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ray.shutdown()  # stop a ray of another module, which may have fewer CPUs
    start_ray(num_cpus=4)
    yield
    ray.shutdown()
    torch.set_num_threads(threads)


def build(name: str, learners: int = 0, **options: Any) -> Any:
    """Build an algorithm on the two-step game."""
    config = CONFIGS[name]().environment(GAME).env_runners(num_envs_per_env_runner=8).debugging(seed=1)
    config.training(**{**SMALL, **options}).learners(num_learners=learners).validate()
    return config.build_algo()


def learner_of(algorithm: Any) -> Any:
    """Return the local learner of an algorithm."""
    return algorithm.learner_group._learner


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("WeightedQMIX", {"td_weighting": "central", "target_update": 4}),
        ("IQL", {"tau": 0.3}),
        ("AWRQMixer", {"heads": 2, "target_update": 4}),
    ],
)
def test_two_learners_keep_equal_weights(name: str, options: dict[str, Any]) -> None:
    """Weights, batch statistics and targets agree exactly, although the episodes differ."""
    algorithm = build(name, learners=2, normalization="batch", reward_scale=None, **options)
    for _ in range(2):
        results = algorithm.train()["learners"]["default_policy"]
    assert np.isfinite(results["grad_norm"])
    answers = algorithm.learner_group.foreach_learner(
        lambda learner: {k: v.numpy() for k, v in learner._team.state_dict().items()}
    )
    first, second = (answer.get() for answer in answers)
    algorithm.stop()
    assert any("running_mean" in k for k in first)
    assert first["reward_scale"] not in (1.0, 2.0)  # the running standard deviation, not a default
    assert any(k.startswith("target.") for k in first)
    different = [k for k in first if not np.array_equal(first[k], second[k])]
    assert different == []
    targets = [k for k in first if k.startswith("target.")]
    moved = [k for k in targets if not np.array_equal(first[k], first[k.replace("target", "online")])]
    assert moved  # the targets are not just the online network


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        ({"weight_decay": 0.1}, torch.optim.Adam, {"weight_decay": 0.1}),
        ({"optimizer": "sgd", "momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.0}),
        ({"optimizer": "rmsprop", "momentum": 0.5}, torch.optim.RMSprop, {"momentum": 0.5}),
    ],
)
def test_the_optimizer_has_the_configured_options(
    options: dict[str, Any], kind: Any, expected: dict[str, float]
) -> None:
    algorithm = build("QMIX", lr=3e-3, **options)
    optimizer = learner_of(algorithm).get_optimizer("default_policy")
    algorithm.stop()
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["lr"] == 3e-3
    assert {k: group[k] for k in expected} == expected


@pytest.mark.slow
def test_metrics_have_the_documented_units() -> None:
    """The gradient norm is that before clipping; values and errors are in currency for any reward scale."""
    metrics = []
    for scale, clip in ((1.0, None), (4.0, None), (1.0, 1e-6)):
        algorithm = build("WeightedQMIX", reward_scale=scale, grad_clip=clip, lr=1e-9, updates_per_iteration=1)
        results = algorithm.train()["learners"]["default_policy"]
        algorithm.stop()
        assert set(METRICS) <= set(results)
        metrics.append({k: float(results[k]) for k in (*METRICS, "grad_norm")} | {"loss": float(results["total_loss"])})
    plain, scaled, clipped = metrics
    assert plain["grad_norm"] == pytest.approx(clipped["grad_norm"], rel=1e-4)
    assert clipped["grad_norm"] > 1e-3
    assert plain["td_error"] != pytest.approx(plain["mixer_loss"])
    # new networks return about zero, so that the errors are the rewards, about 2.4 per step on average
    assert plain["td_error"] == pytest.approx(scaled["td_error"], rel=0.5)
    assert plain["mixer_loss"] == pytest.approx(scaled["mixer_loss"], rel=0.5)
    assert scaled["loss"] < 0.2 * plain["loss"]  # the minimised loss is in units of Q


@pytest.mark.parametrize("options", [{"target_update": 2}, {"tau": 0.25}])
def test_targets_copy_the_running_statistics(options: dict[str, Any]) -> None:
    algorithm = build("VDN", normalization="batch", updates_per_iteration=2, lr=1e-2, **options)
    algorithm.train()
    team = learner_of(algorithm)._team
    online, target = team.online.state_dict(), team.target.state_dict()
    algorithm.stop()
    for name, value in online.items():
        if "running" in name:
            assert torch.equal(target[name], value)
            assert not torch.equal(value, torch.zeros_like(value))
    hard = "target_update" in options
    assert all(torch.equal(target[n], online[n]) for n in online) is hard
    assert not team.target.training


@pytest.mark.slow
def test_a_single_request_uses_the_running_statistics() -> None:
    """Batch normalisation of one row by its own mean would give equal values for all observations."""
    algorithm = build("VDN", normalization="batch", updates_per_iteration=20)
    algorithm.train()
    net = learner_of(algorithm)._team.online.eval().agents[0]
    observations = torch.eye(net.head.layers[0].weight.shape[1])
    together = net.values(observations, net.initial_hidden(len(observations)))
    one_by_one = torch.cat([net.values(x[None], net.initial_hidden(1)) for x in observations])
    algorithm.stop()
    torch.testing.assert_close(together, one_by_one)
    assert together.std(0).min() > 0
