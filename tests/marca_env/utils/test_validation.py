"""Codes that a scenario does not have are refused everywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from marca_env.envs.observations import ObservationEncoder
from marca_env.models.engine import Engine
from marca_env.utils.errors import InputError
from marca_env.utils.validation import check_codes

STATE, ACTION = [0, 0, 0, 0], [0, 0, 0, 0]
Call = Callable[[Engine, np.ndarray, np.ndarray], object]
CALLS: dict[str, Call] = {
    "engine": lambda e, s, a: e.outcome(s, a, np.random.default_rng(0)),
    "results": lambda e, s, a: e.cost_model.results(s, a),
    "revenue": lambda e, s, a: e.revenue_model.predict(s, a),
    "encoder": lambda e, s, a: ObservationEncoder(e.scenario).encode(s, a, np.zeros((len(s), 3)), 4),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("state", "action", "message"),
    [
        ([0, 4, 0, 0], ACTION, "state 1: w is 4; it must lie in 0 to 3"),
        ([-1, 0, 0, 0], ACTION, "state 1: uv is -1"),
        (STATE, [0, 0, 0, 3], "action 1: truncation is 3; it must lie in 0 to 2"),
        (STATE, [0, -1, 0, 0], "action 1: two_tower_length is -1"),
        (STATE, [0, 0, 0.5, 0], "give whole numbers"),
        (STATE[:3], ACTION, "one column per name: uv, w, g, history"),
    ],
)
def test_codes_out_of_range_are_refused_everywhere(
    tiny_engine: Engine, call: Call, state: list[float], action: list[float], message: str
) -> None:
    states, actions = np.array([STATE[: len(state)], state]), np.array([ACTION, action])
    with pytest.raises(InputError, match=message):
        call(tiny_engine, states, actions)


def test_tables_refuse_codes_out_of_range(tiny_engine: Engine) -> None:
    for table in (tiny_engine.table, tiny_engine.revenue_model.table):  # type: ignore[attr-defined]
        with pytest.raises(InputError, match="state 0: w is 4"):
            table(np.array([[0, 4, 0, 0]]))


def test_decisions_not_yet_made_are_ignored(tiny_engine: Engine) -> None:
    encoder = ObservationEncoder(tiny_engine.scenario)
    states, results = np.array([STATE]), np.zeros((1, 3))
    open_, made = (encoder.encode(states, np.array([a]), results, 1)[2] for a in ([1, 9, 9, 9], [1, 0, 0, 0]))
    assert np.array_equal(open_, made)


@pytest.mark.parametrize("prices", [[-1.0, 0.0], [np.nan, 0.0]])
def test_negative_and_nan_prices_are_refused(tiny_engine: Engine, prices: list[float]) -> None:
    encoder = ObservationEncoder(tiny_engine.scenario)
    with pytest.raises(InputError, match="pass prices of at least 0"):
        encoder.encode(np.array([STATE]), np.array([ACTION]), np.zeros((1, 3)), 0, np.array(prices))


def test_valid_codes_are_returned() -> None:
    codes = np.array([[0, 1], [1, 2]])
    assert check_codes("state", codes, ("a", "b"), (2, 3)) is codes
    assert check_codes("state", codes[0], ("a", "b"), (2, 3)).shape == (2,)
