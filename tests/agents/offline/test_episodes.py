"""Episodes of compact rows equal those of their log."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from agents.offline.episodes import EpisodeEncoder, log_episodes
from agents.offline.rows import row_type
from marca_env.scenario.scenario import Scenario


@pytest.mark.parametrize("joint", [False, True])
def test_rows_give_the_same_episodes_as_their_log(
    tiny_requests: pd.DataFrame, tiny_scenario: Scenario, rows: np.ndarray, joint: bool
) -> None:
    """The revenue of each request is the reward of its last decision, and compact rows lose nothing."""
    expected = log_episodes(tiny_requests.iloc[:64], tiny_scenario, joint=joint)
    actual = EpisodeEncoder(tiny_scenario, joint=joint)(rows[:64])
    assert set(actual) == set(expected)
    assert all(np.array_equal(actual[k], expected[k]) for k in expected)
    assert np.array_equal(actual["reward"][:, -1], tiny_requests["revenue"].to_numpy(np.float32)[:64])
    assert not actual["reward"][:, :-1].any()
    turns = [values for name, values in actual.items() if name.startswith("turn:")]
    assert (np.sum(turns, axis=0) == [[1, 1, 1, 1, 0]]).all()  # one agent decides at each turn, nobody at the end
    assert rows.dtype == row_type(tiny_scenario)
    assert row_type(Scenario.load("default")).itemsize == 36
