"""What a batched environment returns: wrong data stop the training with one line, local and remote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.algorithms.presets import preset
from agents.rllib import CONFIGS, train
from agents.rllib.core.rollout import rollout
from agents.rllib.envs.make_env import make_batched
from agents.rllib.envs.sequential_env import SimulatorError
from agents.rllib.modules.team_module import TeamRLModule
from agents.team.team import TeamSpec
from marca_env.envs.batched_env import BatchedStep
from marca_env.utils.errors import InputError
from tests.helpers.dice_runs import local_ray, make_config
from tests.helpers.faulty_envs import Plain, faulty, late
from tests.helpers.rllib_envs import Dice

Change = Callable[[BatchedStep], Any]


class Changed(Dice):
    """Dice whose second step is changed."""

    def __init__(self, num_envs: int, change: Change) -> None:
        super().__init__(num_envs)
        self.change = change

    def step(self, actions: dict[str, np.ndarray]) -> Any:
        """Take one step."""
        step = super().step(actions)
        return self.change(step) if self._at == 2 else step


def play(env: Any) -> dict[str, np.ndarray]:
    """Play one batch of episodes."""
    spec = TeamSpec.from_source(env)
    module = TeamRLModule(model_config={"team": spec.to_dict(), "preset": preset("VDN", gru=4, hidden=(4,)).to_dict()})
    return rollout(env, module, spec, np.random.default_rng(0), 0.5)


def spoilt(values: np.ndarray, value: float) -> np.ndarray:
    """Return a copy with one other number."""
    values = values.copy()
    values[(1, *[2] * (values.ndim - 1))] = value
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: replace(s, observations={**s.observations, "b": spoilt(s.observations["b"], np.nan)}),
            "observation of agent 'b' at step 2 of Changed: entry 2 is nan; training stops",
        ),
        (lambda s: replace(s, state=spoilt(s.state, -np.inf)), "state at step 2 of Changed: entry 2 is -inf; training"),
        (lambda s: replace(s, reward=spoilt(s.reward, np.inf)), "reward at step 2 of Changed: is inf; training stops"),
        (
            lambda s: replace(s, observations={**s.observations, "b": np.zeros((3, 1))}),
            r"Changed: observations of agent 'b' must be an array of shape \(3, 6\), but is of shape \(3, 1\)",
        ),
        (lambda s: replace(s, masks={"a": s.masks["a"]}), "Changed: no masks of agent 'b'; return an array of shape"),
        (lambda s: replace(s, state=s.state[0]), r"Changed: state must be an array of shape \(3, 6\), but is of shape"),
        (lambda s: replace(s, reward=1.0), r"Changed: reward must be an array of shape \(3,\), but is a float"),
        (
            lambda s: (s.observations, s.reward),
            r"Changed: reset\(\) and step\(\) must return a BatchedStep, not a tuple",
        ),
        (
            lambda s: replace(s, masks={**s.masks, "b": 0 * s.masks["b"] > 0}),
            "agent 'b' at step 2 of Changed: on turn, but its mask allows no action",
        ),
    ],
)
def test_wrong_data_of_a_batched_environment_are_refused(change: Change, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        play(Changed(3, change))
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, SimulatorError)


def test_an_error_of_a_batched_environment_is_one_line() -> None:
    with pytest.raises(SimulatorError, match="step 1 of Dice failed: ArithmeticError: the dice fell") as caught:
        play(Dice(3, fail_after=0))
    assert isinstance(caught.value.__cause__, ArithmeticError)


def test_numbers_after_the_end_of_an_episode_do_not_matter() -> None:
    """Sub-environments that have ended may show anything while the others continue; their columns stay zero."""

    def end_early(step: BatchedStep) -> BatchedStep:
        return step

    class Early(Changed):
        def step(self, actions: dict[str, np.ndarray]) -> Any:
            step = Dice.step(self, actions)
            if self._at == 1:
                return replace(step, terminated=np.array([True, False, False]))
            nothing = {a: np.where([[True], [False], [False]], np.nan, v) for a, v in step.observations.items()}
            return replace(step, observations=nothing, reward=np.where([True, False, False], np.nan, step.reward))

    columns = play(Early(3, end_early))
    assert columns["filled"].sum(1).tolist() == [1, 2, 2]
    assert not columns["obs:a"][0, 2].any()
    assert columns["reward"][0, 1] == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_stop_the_training(value: float, one_cpu_ray: None) -> None:
    bad = np.array([0.0, value, 0.0], np.float32)
    env = faulty(observe=late("two", bad, np.zeros(3, np.float32)))
    config = CONFIGS["QMIX"]().environment(env).env_runners(num_envs_per_env_runner=2).debugging(seed=0)
    with pytest.raises(InputError, match=f"observation of agent 'two' at step 2 of Faulty: entry 1 is {value}"):
        train(config, stop={"training_iteration": 3})
    joint = CONFIGS["JointDQN"]().environment(env).env_runners(num_envs_per_env_runner=2).debugging(seed=0)
    with pytest.raises(InputError, match=f"observation of agent 'controller' at step .* of Faulty: entry 4 is {value}"):
        train(joint, stop={"training_iteration": 3})


class NanInTheThirdEpisode(Plain):
    """Environment whose third episode has a number that is not finite."""

    episodes = 0

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        """Start an episode."""
        self.episodes += 1
        return super().reset(seed, options)

    def observe(self, agent: str) -> Any:
        """Return the observation of an agent."""
        return np.full(3, np.nan if self.episodes == 3 else 0.0, np.float32)


def test_a_fault_of_the_data_loses_no_iteration_before_it(tmp_path: Path, one_cpu_ray: None) -> None:
    config = CONFIGS["VDN"]().environment(NanInTheThirdEpisode).env_runners(num_envs_per_env_runner=2)
    config.training(gru=None, hidden=(4,), learning_starts=2, train_batch_size_per_learner=2, updates_per_iteration=1)
    with pytest.raises(InputError, match="entry 0 is nan"):
        train(config.debugging(seed=0), stop={"training_iteration": 5}, out=tmp_path)
    assert [path.name for path in tmp_path.glob("checkpoint_*")] == ["checkpoint_000002"]


def test_a_state_of_its_own_is_stored_and_others_are_not() -> None:
    assert "state" not in play(make_batched(Plain, 2))
    assert "state" in play(Dice(2))


@pytest.fixture(scope="module")
def eight_cpus() -> Iterator[None]:
    """Start a ray for remote runners."""
    with local_ray(num_cpus=8):
        yield


class Opposed(Plain):
    """Environment in which one agent earns what the other pays, by turns."""

    def reward(self, agent: str) -> float:
        """Return the reward of an agent."""
        return (1.0 if agent == "one" else -1.0) * (-1.0) ** self.at


class NotANumber(Dice):
    """Dice that show nan in the second episode."""

    def reset(self, seed: int | None = None) -> BatchedStep:
        """Start an episode."""
        step = super().reset(seed)
        return replace(step, state=spoilt(step.state, np.nan)) if self._resets == 2 else step


@pytest.mark.slow
def test_remote_runners_deliver_the_same_line_at_once(eight_cpus: None, tmp_path: Path) -> None:
    rounds = []
    config = make_config(1, 0).environment("tests.agents.rllib.core.test_env_checks.NotANumber", env_config={})
    with pytest.raises(InputError, match=r"^state at step 0 of NotANumber: entry 2 is nan; training stops.*numbers$"):
        train(config, stop={"training_iteration": 9}, report=rounds.append)
    assert len(rounds) == 1


@pytest.mark.slow
def test_a_warning_of_a_remote_environment_is_shown_once(eight_cpus: None, caplog: pytest.LogCaptureFixture) -> None:
    config = (
        CONFIGS["VDN"]().environment("tests.agents.rllib.core.test_env_checks.Opposed").training(learning_starts=99)
    )
    config.env_runners(num_env_runners=2, num_envs_per_env_runner=8)
    with caplog.at_level("WARNING", logger="agents"):
        algorithm, _ = train(config, stop={"training_iteration": 4})
    algorithm.stop()
    messages = [r.getMessage() for r in caplog.records if "opposed" in r.getMessage()]
    assert messages == ["agents one and two have opposed rewards in Opposed; the algorithms maximise their mean"]
