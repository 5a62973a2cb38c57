"""PettingZoo's own conversions between the turn-based and the parallel form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pettingzoo.test import api_test
from pettingzoo.utils.conversions import aec_to_parallel, parallel_to_aec, turn_based_aec_to_parallel

import marca_env


def play(env: Any, episodes: int = 3) -> list[float]:
    """Play legal actions; return the reward of each step."""
    rng, rewards = np.random.default_rng(0), []
    for episode in range(episodes):
        _, infos = env.reset(seed=episode)
        while env.agents:
            legal = {agent: np.flatnonzero(infos[agent]["action_mask"]) for agent in env.possible_agents}
            _, reward, _, _, infos = env.step({agent: int(rng.choice(own)) for agent, own in legal.items()})
            rewards.append(float(next(iter(reward.values()))))
    return rewards


@pytest.mark.library("pz-aec-to-parallel")
def test_conversion_of_the_turn_based_form_is_refused_and_the_parallel_form_is_there() -> None:
    """A stage makes several decisions in a row, and that conversion expects one of every agent per cycle."""
    with pytest.raises(AssertionError, match="is_parallelizable"):
        aec_to_parallel(marca_env.env())
    assert len(play(marca_env.parallel_env(on_illegal="error"))) == 15


@pytest.mark.library("pz-turns")
def test_conversion_of_turns_gives_the_episodes_of_the_parallel_form() -> None:
    turns = turn_based_aec_to_parallel(marca_env.env(observations="box", on_illegal="error"))
    assert play(turns) == play(marca_env.parallel_env(observations="box", on_illegal="error"))


@pytest.mark.library("pz-parallel-to-aec")
@pytest.mark.parametrize("observations", ["dict", "box"])
@pytest.mark.filterwarnings("ignore")
def test_conversion_of_the_parallel_form(observations: str, capsys: pytest.CaptureFixture[str]) -> None:
    api_test(parallel_to_aec(marca_env.parallel_env(observations=observations)), num_cycles=60)
    back = aec_to_parallel(parallel_to_aec(marca_env.parallel_env(observations=observations)))
    assert len(play(back)) == 15
