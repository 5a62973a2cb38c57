"""A single controller in place of agents: its observations, its actions, and what it can learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agents.rllib.envs.make_env import make_batched
from agents.team.single_controller import CONTROLLER, SimultaneousView, TurnBasedView, controller_view, merge_masks
from benchmarks.experiments.games import experiment as games
from benchmarks.experiments.games.matrix_games import MatrixGame, TwoStepGame
from benchmarks.suite.api import Case
from marca_env.envs.batched_env import batched_env
from marca_env.utils.errors import InputError
from tests.helpers.rllib_envs import Corridor


def act(*actions: int) -> dict[str, np.ndarray]:
    """Return the controller's actions."""
    return {CONTROLLER: np.array(actions)}


def test_the_controller_decides_for_one_agent_after_the_other() -> None:
    env = make_batched(TwoStepGame, 2, joint=True)
    assert isinstance(env, SimultaneousView)
    assert (env.max_steps, env.action_sizes, env.state_size) == (4, {CONTROLLER: 3}, 4 + 2 * 3)
    first = env.reset(seed=0)
    assert first.masks[CONTROLLER].tolist() == [[True, True, False]] * 2
    assert first.state[0].tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 0, 0]  # phase; agent_0 is next
    middle = env.step(act(0, 1))
    assert not middle.reward.any()
    assert not middle.terminated.any()
    assert middle.state[1].tolist() == [1, 0, 0, 0, 0, 0, 1, 1, 0, 0]  # it chose 1; agent_1 is next
    second = env.step(act(0, 0))
    assert second.state[:, :4].argmax(1).tolist() == [1, 2]  # agent_0 alone chose the matrix
    env.step(act(1, 1))
    last = env.step(act(1, 1))
    assert last.reward.tolist() == [7.0, 8.0]
    assert last.terminated.all()


def test_agents_off_turn_wait_and_illegal_actions_stay_illegal() -> None:
    """Agents that are not on turn wait, and illegal actions stay illegal."""
    env = make_batched(Corridor, 1, joint=True)
    assert isinstance(env, SimultaneousView)
    env.reset(seed=0)
    step = env.step(act(0))  # left stops: the episode is over after right.arm's move
    assert step.masks[CONTROLLER].tolist() == [[False, True, True, False]]
    step = env.step(act(1))
    assert step.terminated.all()
    assert step.masks[CONTROLLER].tolist() == [[False, False, False, True]]


def test_turn_based_environments_get_the_turn_based_view(exact_engine) -> None:  # type: ignore[no-untyped-def]
    assert isinstance(controller_view(batched_env(3, engine=exact_engine)), TurnBasedView)


def test_two_agents_on_turn_are_refused_in_the_turn_based_view() -> None:
    with pytest.raises(InputError, match="two agents act in the same step"):
        merge_masks({"a": np.ones((1, 3), bool), "b": np.ones((1, 3), bool)}, {a: np.ones(1, bool) for a in "ab"}, 3)


@pytest.mark.parametrize("game", [TwoStepGame, MatrixGame])
@pytest.mark.parametrize("algo", ["JointDDQN", "REM"])
def test_a_controller_solves_games_that_vdn_cannot(game: type, algo: str, one_cpu_ray: None, tmp_path: Path) -> None:
    """The controller observes the first decision when it takes the second, so nothing is factorised."""
    options = {"heads": 3} if algo == "REM" else {}
    case = Case(
        algo,
        0,
        scenario=f"{game.__module__}.{game.__name__}",
        task=game.__name__,
        budget={"iterations": 20},
        config={"algo": algo, "expected": 8.0, "options": {**games.OPTIONS, **options}},
    )
    assert case.config["options"]["epsilon"] == 1.0
    assert games.measure(case, tmp_path) == {"return": 8.0}
