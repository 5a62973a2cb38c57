"""The climbing and penalty games pay their matrices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from agents.tasks.matrix_games import climbing_game, penalty_game
from marca_env.utils.errors import InputError


@pytest.mark.parametrize(
    ("make", "options", "payoff"),
    [
        (climbing_game, {}, [[11, -30, 0], [-30, 7, 6], [0, 0, 5]]),
        (penalty_game, {}, [[-10, 0, 10], [0, 2, 0], [10, 0, -10]]),
        (penalty_game, {"penalty": -50}, [[-50, 0, 10], [0, 2, 0], [10, 0, -50]]),
    ],
    ids=["climbing", "penalty", "harder penalty"],
)
def test_games_pay_their_matrix(make, options, payoff):
    plays = np.array(list(itertools.product(range(3), repeat=2)))
    env = make(9, **options)
    env.reset()
    step = env.step({"agent_0": plays[:, 0], "agent_1": plays[:, 1]})
    assert step.terminated.all()
    assert step.reward.reshape(3, 3).tolist() == payoff


@pytest.mark.parametrize("penalty", [3, "10", float("nan"), True])
def test_penalties_that_are_no_penalties_are_refused(penalty):
    with pytest.raises(InputError, match=r"penalty is .*at most 0"):
        penalty_game(1, penalty)
