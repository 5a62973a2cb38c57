"""Tests of the encoder: observations, masks and spaces."""

import numpy as np
import pytest

from marca_env.envs.observations import PRICE_LIMIT, RESULT_LIMIT, TIME_LIMIT, ObservationEncoder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.factories import ExactLaw, make_timed_engine


@pytest.fixture(scope="module")
def encoder(tiny_scenario):
    return ObservationEncoder(tiny_scenario)


@pytest.fixture(scope="module")
def batch(tiny_scenario):
    rng = np.random.default_rng(0)
    states = rng.integers(0, tiny_scenario.feature_sizes, (200, 4))
    actions = rng.integers(0, tiny_scenario.action_shape, (200, 4))
    return states, actions, rng.integers(1, 60, (200, 3)).astype(float)


def test_sizes_of_the_default_scenario():
    encoder = ObservationEncoder(Scenario.load("default"))
    assert encoder.agents == ("retrieval", "pre_ranking")
    assert encoder.turn_agent == ("retrieval",) * 4 + ("pre_ranking",)
    assert encoder.n_actions == {"retrieval": 6, "pre_ranking": 6}
    # 28 feature categories (23 without history), 6 turns, own options, earlier results, 2 prices
    assert encoder.sizes == {"retrieval": 28 + 6 + 16 + 0 + 2, "pre_ranking": 23 + 6 + 5 + 1 + 2}
    assert encoder.state_size == 28 + 6 + 21 + 3 + 2


def test_observation_and_state_match_a_case_by_hand(encoder):
    states, actions, results = np.array([[2, 0, 1, 1]]), np.array([[1, 2, 0, 1]]), np.array([[30.0, 30.0, 10.0]])
    observations, _, state = encoder.encode(states, actions, results, 3, np.array([0.0, 50.0 / 0.8]))
    uv, w, g, turn, truncation = [0, 0, 1], [1, 0, 0, 0], [0, 1], [0, 0, 0, 1, 0], [0, 0, 0]
    expected = [*uv, *w, *g, *turn, *truncation, 0.5, 0, np.log(2)]
    np.testing.assert_allclose(observations["pre_ranking"][0], expected, rtol=1e-6)
    history, channels, length, rescoring = [0, 1], [0, 1], [0, 0, 1], [1, 0]
    decisions = [*channels, *length, *rescoring, *truncation]
    expected_state = [*uv, *w, *g, *history, *turn, *decisions, 0.5, 0, 0, 0, np.log(2)]
    np.testing.assert_allclose(state[0], expected_state, rtol=1e-6)


def test_history_is_hidden_from_pre_ranking(encoder, batch):
    states, actions, results = batch
    other = states.copy()
    other[:, 3] = 1 - other[:, 3]
    for turn in range(5):
        a, b = (encoder.encode(s, actions, results, turn)[0] for s in (states, other))
        np.testing.assert_array_equal(a["pre_ranking"], b["pre_ranking"])
        assert np.any(a["retrieval"] != b["retrieval"])


def test_observations_do_not_depend_on_later_decisions(encoder, batch):
    states, actions, results = batch
    rng = np.random.default_rng(1)
    for turn in range(5):
        later = actions.copy()
        later[:, turn:] = rng.integers(0, encoder.scenario.action_shape, actions.shape)[:, turn:]
        hidden = np.where(encoder.settled(turn), results, 0.0)
        first = encoder.encode(states, actions, results, turn)
        second = encoder.encode(states, later, hidden, turn)
        np.testing.assert_array_equal(first[2], second[2])
        for agent in encoder.agents:
            np.testing.assert_array_equal(first[0][agent], second[0][agent])


def test_masks_allow_the_options_on_turn_and_wait_elsewhere(encoder, batch):
    sizes = dict(enumerate(encoder.scenario.action_shape))
    for turn in range(encoder.n_turns + 1):
        _, masks, _ = encoder.encode(*batch, turn)
        for agent in encoder.agents:
            on_turn = turn < encoder.n_turns and encoder.turn_agent[turn] == agent
            wait = encoder.n_actions[agent] - 1
            expected = list(range(sizes[turn])) if on_turn else [wait]
            assert encoder.legal(agent, turn).tolist() == expected
            assert masks[agent].shape == (200, encoder.n_actions[agent])
            assert np.flatnonzero(masks[agent][17]).tolist() == expected


def test_observations_and_states_lie_in_their_spaces(encoder, batch):
    states, actions, results = batch
    for turn in range(encoder.n_turns + 1):
        observations, masks, state = encoder.encode(states, actions, results * 1e4, turn, np.array([1e9, 0.0]))
        assert all(encoder.state_space().contains(row) for row in state[:20])
        for agent in encoder.agents:
            for k in range(20):
                row = {"observation": observations[agent][k], "action_mask": masks[agent][k].astype(np.int8)}
                assert encoder.observation_space(agent).contains(row)
    assert state[:, -2].max() == PRICE_LIMIT
    assert state.max() == max(RESULT_LIMIT, PRICE_LIMIT)


def test_episodes_equal_the_stacked_turns(encoder, batch):
    episodes = encoder.episodes(*batch)
    for turn in range(encoder.n_turns + 1):
        observations, masks, state = encoder.encode(*batch, turn)
        np.testing.assert_array_equal(episodes["state"][:, turn], state)
        for agent in encoder.agents:
            np.testing.assert_array_equal(episodes["obs"][agent][:, turn], observations[agent])
            np.testing.assert_array_equal(episodes["mask"][agent][:, turn], masks[agent])
    actions = episodes["actions"]
    np.testing.assert_array_equal(actions["retrieval"][:, :3], batch[1][:, :3])
    assert set(actions["retrieval"][:, 3]) == {3}  # wait
    assert set(actions["pre_ranking"][:, :3].ravel()) == {3}
    for agent in encoder.agents:
        legal = np.take_along_axis(episodes["mask"][agent][:, :-1], actions[agent][..., None], axis=2)
        assert legal.all()


def test_prices_may_differ_by_request(encoder, batch):
    prices = np.random.default_rng(0).random((200, 2)) * 10
    together = encoder.encode(*batch, 2, prices)[2]
    alone = encoder.encode(*(part[5:6] for part in batch), 2, prices[5])[2]
    np.testing.assert_array_equal(together[5:6], alone)


def test_wrong_inputs_are_named_in_the_error(encoder, batch):
    with pytest.raises(InputError, match="turn is 6"):
        encoder.encode(*batch, 6)
    with pytest.raises(InputError, match="prices have shape"):
        encoder.encode(*batch, 0, np.zeros(3))
    with pytest.raises(InputError, match="did you mean 'retrieval'"):
        encoder.observation_space("retreival")


def test_later_stages_see_the_time_that_earlier_ones_have_used(tiny_scenario: Scenario, exact_law: ExactLaw) -> None:
    """Pre-ranking sees retrieval's mean service time over the limit; retrieval sees none of its own."""
    engine = make_timed_engine(tiny_scenario, exact_law, 0.01)
    encoder = ObservationEncoder(engine.scenario, latency_map=engine.latency_map)
    states, actions = engine.population.states[:6], np.tile([1, 2, 1, 2], (6, 1))
    results = exact_law.results(states, actions)
    used = engine.latency_map.stage(0, actions, results[:, 0]).mean / 0.01
    column = -1 - len(tiny_scenario.clusters)
    before, after = (encoder.encode(states, actions, results, turn) for turn in (2, 3))
    for (observations, _, state), expected in ((before, np.zeros(6)), (after, used)):
        np.testing.assert_allclose(observations["pre_ranking"][:, column], expected, rtol=1e-6)
        np.testing.assert_allclose(state[:, column], expected, rtol=1e-6)
        np.testing.assert_array_equal(observations["retrieval"][:, column], 0.0)
    end = encoder.encode(states, actions, results, 4)[2]
    total = engine.service_time(actions, results).mean / 0.01
    np.testing.assert_allclose(end[:, column], np.minimum(total, TIME_LIMIT), rtol=1e-6)
    assert encoder.state_space().contains(end[0])
