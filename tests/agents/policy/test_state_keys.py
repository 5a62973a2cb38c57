"""Keys of states: one for each observable state, whatever hidden features say."""

from __future__ import annotations

import numpy as np
import pytest

from agents.policy.state_keys import StateKeys
from marca_env.scenario.scenario import Feature, Scenario


@pytest.fixture
def states() -> np.ndarray:
    return np.array([[2, 7, 1], [0, 3, 1], [2, 5, 1], [2, 0, 0]])  # the second column is hidden


@pytest.mark.parametrize("kind", ["category", "number"])
def test_hidden_columns_make_no_difference(tiny_scenario: Scenario, states: np.ndarray, kind) -> None:
    features = (
        Feature("a", 3),
        Feature("row", 8, hidden=True),
        Feature("b", 2 if kind == "category" else 1, kind=kind),
    )
    keys = StateKeys(tiny_scenario.replace(features=features, site=None))
    assert keys.n_states == (6 if kind == "category" else None)
    distinct, index = keys.distinct(states)
    assert len(distinct) == 3
    assert index[0] == index[2]
    np.testing.assert_array_equal(keys.states(distinct)[index][:, [0, 2]], states[:, [0, 2]])
    assert not keys.states(distinct)[:, 1].any()
    short = keys.distinct(states[:, [0, 2]])
    np.testing.assert_array_equal(short[0], distinct)
    np.testing.assert_array_equal(short[1], index)
