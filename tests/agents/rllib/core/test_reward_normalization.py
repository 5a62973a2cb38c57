"""Learning does not depend on the currency; the statistics are those of the run and exact after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.policy.allocation_policy import AllocationPolicy
from agents.rllib import CONFIGS, train
from agents.rllib.training.algorithm_checkpoints import restore
from marca_env.utils.errors import InputError
from tests.helpers.rllib_envs import Corridor

pytestmark = pytest.mark.usefixtures("one_cpu_ray")
TINY = {"gru": None, "hidden": (8,), "updates_per_iteration": 3, "train_batch_size_per_learner": 8}
TINY |= {"learning_starts": 4, "epsilon": 0.5, "grad_clip": 1.0}


class PaidCorridor(Corridor):
    """The corridor with its rewards multiplied by ``currency``."""

    def __init__(self, currency: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.currency = currency

    def step(self, actions: dict[str, int]) -> Any:
        """Step, and convert the rewards."""
        observations, rewards, *rest = super().step(actions)
        return observations, {a: r * self.currency for a, r in rewards.items()}, *rest


def run(name: str = "QMIX", currency: float = 1.0, iterations: int = 3, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Train a few iterations; the caller stops the algorithm."""
    config = CONFIGS[name]().environment(PaidCorridor, env_config={"currency": currency}).debugging(seed=0)
    config.env_runners(num_envs_per_env_runner=4).training(**{**TINY, **options})
    return train(config, stop={"training_iteration": iterations})


def weights(algorithm: Any) -> dict[str, np.ndarray]:
    """Return the online networks' weights."""
    state = algorithm.learner_group._learner._team.state_dict()
    return {k: v.numpy().copy() for k, v in state.items() if k.startswith("online.")}


@pytest.mark.parametrize("normalization", ["step", "step_mean", "return"])
def test_learning_does_not_depend_on_the_currency(normalization: str) -> None:
    """Rewards of 1,024 times the size give the same weights, and 1,024 times the values and errors."""
    results = []
    for currency in (1.0, 1024.0):  # a power of two, with which no product is rounded differently
        algorithm, numbers = run(currency=currency, reward_normalization=normalization)
        results.append((weights(algorithm), numbers))
        algorithm.stop()
    (small, told), (large, told_large) = results
    for name, value in small.items():
        assert np.array_equal(value, large[name]), name
    for metric, factor in (("q_tot", 1024), ("td_error", 1024), ("mixer_loss", 1024**2), ("loss", 1)):
        assert told_large[metric] == pytest.approx(factor * told[metric], rel=1e-6), metric


def test_without_normalisation_learning_depends_on_the_currency() -> None:
    first, _ = run(reward_normalization="none")
    second, _ = run(currency=1024.0, reward_normalization="none")
    assert not np.array_equal(weights(first)["online.mixer.w1.0.weight"], weights(second)["online.mixer.w1.0.weight"])
    first.stop()
    second.stop()


def test_the_scale_is_that_of_all_steps_so_far_and_follows_them() -> None:
    algorithm, _ = run(iterations=1)
    scales = []
    for _ in range(3):
        columns = algorithm.buffer.columns
        size = len(algorithm.buffer)
        rewards = columns["reward"][:size][columns["filled"][:size]]
        scales.append(float(algorithm.learner_group._learner._team.reward_scale))
        assert scales[-1] == pytest.approx(rewards.std(), rel=1e-6)
        algorithm.train()
    assert len(set(scales)) > 1
    algorithm.stop()


def test_a_fixed_scale_stays() -> None:
    algorithm, _ = run(reward_scale=3.0)
    assert float(algorithm.learner_group._learner._team.reward_scale) == 3.0
    algorithm.stop()


def test_statistics_are_in_the_checkpoint(tmp_path: Path) -> None:
    algorithm, _ = run(iterations=2)
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    expected = algorithm.reward_statistics.state()
    algorithm.stop()
    resumed = restore(tmp_path / "checkpoint", trust=True)
    assert resumed.reward_statistics.state() == expected
    resumed.train()
    scale = float(resumed.learner_group._learner._team.reward_scale)
    assert scale == pytest.approx(resumed.reward_statistics.step.std, rel=1e-6)
    assert resumed.reward_statistics.step.count > expected["step"]["count"]
    resumed.stop()


def test_an_unknown_normalization_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"reward_normalization.*'step'"):
        run(reward_normalization="steps")


def test_exported_values_include_the_subtracted_mean(tmp_path: Path) -> None:
    """The policy of a recommender trained with ``step_mean`` still states revenue in currency."""
    config = (
        CONFIGS["VDN"]().environment("marca_env/parallel-v0", env_config={"scenario": "stages-2-v0"}).debugging(seed=0)
    )
    config.env_runners(num_envs_per_env_runner=8).training(**{**TINY, "reward_normalization": "step_mean"})
    algorithm, _ = train(config, stop={"training_iteration": 2})
    policy = AllocationPolicy.load(algorithm.export_policy(tmp_path / "policy"))
    team = algorithm.learner_group._learner._team
    assert policy.reward_shift == pytest.approx(float(team.reward_shift))
    assert policy.reward_shift > 0
    states = np.zeros((1, len(policy.scenario.feature_names)), int)
    shifted = policy.values(states)
    policy.reward_shift = 0.0
    policy.forget()
    assert shifted == pytest.approx(policy.values(states) + float(team.reward_shift), rel=1e-5)
    algorithm.stop()
