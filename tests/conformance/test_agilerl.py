"""AgileRL reads masks from the infos; its vector of environments runs where AgileRL is installed.

AgileRL asks for an older PettingZoo than the pinned one, so it is not in the virtual environment of these tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import marca_env


def make() -> Any:
    return marca_env.parallel_env(observations="box", on_illegal="error")


@pytest.mark.library("masks")
@pytest.mark.parametrize("scenario", ["default", "ranking-model-v0"])
def test_masks_are_in_the_infos_of_both_forms(scenario: str) -> None:
    parallel = marca_env.parallel_env(scenario, observations="box", on_illegal="error")
    aec = marca_env.env(scenario, observations="box", on_illegal="error")
    rng = np.random.default_rng(0)
    for episode in range(5):
        observations, infos = parallel.reset(seed=episode)
        aec.reset(seed=episode)
        while parallel.agents:
            for agent in parallel.agents:
                assert parallel.observation_space(agent).contains(observations[agent])
                np.testing.assert_array_equal(infos[agent]["action_mask"], aec.infos[agent]["action_mask"])
            legal = {agent: np.flatnonzero(info["action_mask"]) for agent, info in infos.items()}
            actions = {agent: int(rng.choice(own)) for agent, own in legal.items()}
            aec.step(actions[aec.agent_selection])
            observations, _, _, _, infos = parallel.step(actions)  # an illegal one would raise


@pytest.mark.library("agilerl")
def test_vector_of_environments() -> None:
    vector = pytest.importorskip("agilerl.vector", reason="needs agilerl")
    env = vector.AsyncPettingZooVecEnv([make, make])
    observations, infos = env.reset(seed=0)
    for _ in range(12):
        assert {agent: rows.shape for agent, rows in observations.items()} == {
            "retrieval": (2, 52),
            "pre_ranking": (2, 37),
        }
        observations, *_, infos = env.step({a: infos[a]["action_mask"].argmax(axis=1) for a in env.agents})
    env.close()
