"""Engines and pools of scenarios with a latency limit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from marca_env.models.engine import Engine
from marca_env.models.latency import Duration
from marca_env.models.population import Population, Sparsity
from marca_env.scenario.scenario import Latency, Scenario, ScenarioError
from marca_env.utils.errors import InputError
from tests.helpers.factories import ExactLaw, make_timed_engine

LIMIT = 0.012
"""Seconds; a third of the tiny scenario's joint actions are late at it."""


@pytest.fixture(scope="module")
def engine(tiny_scenario: Scenario, exact_law: ExactLaw) -> Engine:
    return make_timed_engine(tiny_scenario, exact_law, LIMIT)


def draw(engine: Engine, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    actions = rng.integers(0, engine.scenario.action_shape, (n, len(engine.scenario.decisions)))
    return engine.sample_states(rng, n), actions


def test_a_late_request_earns_a_share_of_the_cheapest_action(engine: Engine, exact_law: ExactLaw) -> None:
    states, actions = draw(engine, 400)
    outcome = engine.outcome(states, actions, np.random.default_rng(0))
    time = engine.service_time(actions, exact_law.results(states, actions))
    late = time.share_above(LIMIT)
    on_time = exact_law.predict(states, actions)
    cheapest = exact_law.predict(states, np.zeros_like(actions))
    assert outcome.late is not None
    assert outcome.latency is not None
    assert 0.1 < late.mean() < 0.9
    np.testing.assert_allclose(outcome.late, late)
    np.testing.assert_allclose(outcome.latency, time.mean)
    np.testing.assert_allclose(outcome.revenue, (1 - late) * on_time + late * 0.5 * cheapest, rtol=1e-5)
    np.testing.assert_array_equal(engine.evaluate(states, actions)[2], outcome.expected_revenue)


def test_waiting_makes_requests_late_and_costs_stay(engine: Engine) -> None:
    states, actions = draw(engine, 200)
    idle = engine.outcome(states, actions, np.random.default_rng(0))
    wait = Duration(np.full(200, 1.0), np.zeros(200))
    loaded = engine.outcome(states, actions, np.random.default_rng(0), wait)
    assert idle.latency is not None
    assert loaded.latency is not None
    np.testing.assert_allclose(loaded.late, 1.0, atol=1e-9)
    np.testing.assert_allclose(loaded.latency, idle.latency + 1.0)
    np.testing.assert_array_equal(loaded.cost, idle.cost)


def test_a_hard_limit_cuts_the_answer_off(tiny_scenario: Scenario, exact_law: ExactLaw, engine: Engine) -> None:
    hard = make_timed_engine(tiny_scenario, exact_law, LIMIT, hard=True)
    states, actions = draw(engine, 200)
    soft, cut = (e.outcome(states, actions, np.random.default_rng(0)) for e in (engine, hard))
    assert cut.latency is not None
    assert cut.latency.max() <= LIMIT
    np.testing.assert_array_equal(cut.revenue, soft.revenue)


def test_sparse_revenue_has_the_net_mean_from_one_number_a_request(
    tiny_scenario: Scenario, exact_law: ExactLaw
) -> None:
    noisy = make_timed_engine(tiny_scenario, exact_law, 0.018, noise="gamma", sparsity=Sparsity(0.5, 1.0))
    state, action = np.array([[2, 0, 1, 1]]), np.array([[1, 1, 1, 1]])
    n, rng = 200_000, np.random.default_rng(5)
    outcome = noisy.outcome(np.repeat(state, n, axis=0), np.repeat(action, n, axis=0), rng)
    assert outcome.late is not None
    assert 0.05 < outcome.late[0] < 0.95
    np.testing.assert_allclose(outcome.revenue.mean(), outcome.expected_revenue[0], rtol=0.03)
    other = np.random.default_rng(5)
    other.random(n)
    assert rng.random() == other.random()  # one number for each request


def test_tables_and_pools_are_net_of_lateness(engine: Engine) -> None:
    states = engine.population.states[:7]
    values, _ = engine.table(states)
    joint = engine.scenario.joint_actions
    alone = engine.evaluate(np.repeat(states, len(joint), axis=0), np.tile(joint, (len(states), 1)))[2]
    np.testing.assert_allclose(values.ravel(), alone, rtol=1e-6)
    pool = engine.pool(50, seed=1)
    np.testing.assert_allclose(pool.outcomes["revenue"], engine.table(pool.states)[0], rtol=1e-5)
    again = pickle.loads(pickle.dumps(pool))
    assert pool.lateness is not None
    np.testing.assert_array_equal(again.outcomes["revenue"], pool.outcomes["revenue"])
    np.testing.assert_array_equal(again.lateness.service.variance, pool.lateness.service.variance)


def test_without_service_times_a_limit_is_refused(tiny_scenario: Scenario, exact_law: ExactLaw) -> None:
    limited = tiny_scenario.replace(latency=Latency(LIMIT))
    population = Population(np.zeros((1, 4), dtype=np.int64), np.ones(1))
    with pytest.raises(InputError, match=r"latency limit, but its costs are a ExactLaw.*pass latency_map"):
        Engine(limited, exact_law, exact_law, population)
    unlimited = Engine(tiny_scenario, exact_law, exact_law, population)
    with pytest.raises(InputError, match="has no latency limit"):
        unlimited.service_time(np.zeros((1, 4), dtype=np.int64), np.zeros((1, 3)))


def test_limits_are_checked_and_kept_in_files(tiny_scenario: Scenario) -> None:
    for wrong, match in (({"limit": 0.0}, "limit"), ({"limit": 1.0, "fallback": 1.5}, "fallback")):
        with pytest.raises(ScenarioError, match=match):
            Latency(**wrong)  # type: ignore[arg-type]
    limited = tiny_scenario.replace(latency=Latency(0.1, hard=True))
    assert Scenario.from_dict(limited.to_dict()) == limited
    assert "latency" not in tiny_scenario.to_dict()
    assert limited.differs_from(tiny_scenario) == ()
