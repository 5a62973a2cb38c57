"""Experiment ``games``: the games pay their matrices, and algorithms find the optima that they can represent."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from agents.tasks.matrix_games import MATRIX_3X3, MatrixGame, TwoStepGame
from benchmarks.experiments.games import experiment as games
from benchmarks.suite.api import Case, Row
from marca_env.utils.errors import InputError


def test_two_step_game_pays_the_expected_reward_of_every_play() -> None:
    plays = np.array(list(itertools.product(range(2), repeat=4)))  # (a0, a1) of both steps
    env = TwoStepGame(len(plays))
    env.reset()
    first = env.step({"agent_0": plays[:, 0], "agent_1": plays[:, 1]})
    assert not first.terminated.any()
    assert not first.reward.any()
    last = env.step({"agent_0": plays[:, 2], "agent_1": plays[:, 3]})
    assert last.terminated.all()
    second = [[0, 1], [1, 8]]
    expected = [7 if p[0] == 0 else second[p[2]][p[3]] for p in plays]
    assert last.reward.tolist() == expected


def test_agents_observe_who_they_are_and_the_phase() -> None:
    env = TwoStepGame(2)
    before = env.reset()
    after = env.step({"agent_0": np.array([0, 1]), "agent_1": np.array([0, 0])})
    assert not np.array_equal(before.observations["agent_0"], before.observations["agent_1"])
    assert not np.array_equal(after.state[0], after.state[1])
    assert env.reset().state.tolist() == before.state.tolist()


def test_matrix_game_pays_its_matrix() -> None:
    plays = np.array(list(itertools.product(range(3), repeat=2)))
    env = MatrixGame(9)
    env.reset()
    step = env.step({"agent_0": plays[:, 0], "agent_1": plays[:, 1]})
    assert step.terminated.all()
    assert step.reward.reshape(3, 3).tolist() == [list(row) for row in MATRIX_3X3]


def test_invalid_games_are_errors() -> None:
    with pytest.raises(InputError, match="num_envs is 0"):
        TwoStepGame(0)
    with pytest.raises(InputError, match="3×3"):
        MatrixGame(1, payoff=((1.0, 2.0), (3.0, 4.0)))


@pytest.mark.slow
@pytest.mark.parametrize("case", games.cases(quick=False, seeds=(0,)), ids=lambda c: f"{c.task}-{c.method}")
def test_algorithms_reach_the_return_that_theory_expects(case: Case, one_cpu_ray: None, tmp_path: Path) -> None:
    """One seed of the published experiment; QMIX cannot represent the matrix, VDN not even the two-step game."""
    assert games.measure(case, tmp_path) == {"return": case.config["expected"]}


@pytest.mark.slow
def test_a_line_of_the_table_has_every_seed(one_cpu_ray: None, tmp_path: Path) -> None:
    cases = [
        case for case in games.cases(quick=True, seeds=(0, 1)) if (case.task, case.method) == ("MatrixGame", "QMIX")
    ]
    rows = [Row(case, json.loads(json.dumps(games.measure(case, tmp_path))), 1.0) for case in cases]
    (table,) = games.tables(rows)
    assert table.row_count == 1
    (cell,) = table.columns[-1].cells
    assert [float(word) for word in str(cell).split()] == [row.numbers["return"] for row in rows]


def test_ctrl_c_ends_a_run_without_a_row(one_cpu_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.rllib.core.team_algorithm import TeamAlgorithm

    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TeamAlgorithm, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        games.measure(games.cases(quick=True, seeds=(0,))[0], tmp_path)
