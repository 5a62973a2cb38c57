"""The one simulator of a minute: prices or actions in, outcome and telemetry out."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.models.request_pool import RequestPool
from marca_env.traffic.allocation import AllocationTable
from marca_env.traffic.day_simulator import replay
from marca_env.traffic.policies import PricedPolicy
from marca_env.traffic.simulated_system import MOST_QPS, SimulatedSystem, SystemChanges, draw_arrivals
from marca_env.traffic.workload import Traffic
from marca_env.utils.errors import InputError
from mpc import StaticBalancer
from tests.helpers.small_system import make_pool

PRICES = np.array([2.0, 6.0])


@pytest.fixture(scope="module")
def pool() -> RequestPool:
    return make_pool(per_window=20)


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic("ramp", np.linspace(100.0, 500.0, 40), first_minute=700)


def test_minutes_under_fixed_prices_are_the_replayed_day(pool: RequestPool, traffic: Traffic) -> None:
    counts, values = draw_arrivals(pool, traffic, 4), pool.outcomes["revenue"]
    rows = replay(PricedPolicy("still", values, pool.costs, StaticBalancer(PRICES)), pool, traffic, counts)
    system = SimulatedSystem(pool, traffic, counts)
    observation, loads = system.start(PRICES), []
    assert observation.minute == 700
    for _ in range(40):
        outcome, observation = system.step(PRICES)
        loads.append(outcome.equivalent)
    assert np.array_equal(np.array(loads), rows[["load_retrieval", "load_ranking"]].to_numpy())
    assert observation.minute == 740
    assert system.is_over


def test_arrivals_drawn_one_by_one_are_those_drawn_before(pool: RequestPool, traffic: Traffic) -> None:
    drawn = SimulatedSystem(pool, traffic, draw_arrivals(pool, traffic, 4))
    drawing = SimulatedSystem(pool, traffic, np.random.default_rng([4, 3]))
    for system in (drawn, drawing):
        system.start(PRICES)
    assert [drawn.step(PRICES)[0].requests for _ in range(5)] == [drawing.step(PRICES)[0].requests for _ in range(5)]


def test_chosen_actions_have_the_effect_of_the_prices_that_choose_them(pool: RequestPool, traffic: Traffic) -> None:
    counts, table = draw_arrivals(pool, traffic, 4), AllocationTable.of_pool(pool)
    priced, chosen = SimulatedSystem(pool, traffic, counts), SimulatedSystem(pool, traffic, counts)
    for system in (priced, chosen):
        system.start(PRICES)
    for _ in range(3):
        actions = table.choose(PRICES, chosen.possible_requests)
        assert np.array_equal(priced.step(PRICES)[0].load, chosen.serve(actions, PRICES)[0].load)


def test_a_held_period_is_observed_by_its_means_and_ends_with_the_day(pool: RequestPool, traffic: Traffic) -> None:
    system = SimulatedSystem(pool, traffic, draw_arrivals(pool, traffic, 4))
    system.start(PRICES)
    outcomes, observation = system.hold(PRICES, 30)
    assert observation.qps == pytest.approx(np.mean([outcome.qps for outcome in outcomes]))
    assert observation.load == pytest.approx(np.mean([outcome.equivalent for outcome in outcomes], axis=0))
    assert len(system.hold(PRICES, 30)[0]) == 10


def test_changes_of_capacity_and_cost_act_in_their_minute(pool: RequestPool, traffic: Traffic) -> None:
    changes = SystemChanges.none(40, 2)
    changes.capacity[1], changes.cost[1] = 0.5, 2.0
    counts = np.repeat(draw_arrivals(pool, traffic, 4)[:1], 40, axis=0)
    system = SimulatedSystem(pool, traffic, counts, changes)
    system.start(PRICES)
    (plain, before), (changed, after), (_, later) = (system.step(np.full(2, 1e6)) for _ in range(3))
    assert changed.load == pytest.approx(2 * plain.load)
    assert after.budget == pytest.approx(0.5 * before.budget)
    assert later.budget == pytest.approx(before.budget)


@pytest.mark.parametrize("qps", [1e308, 1e9, np.inf, np.nan, -1.0])
def test_rates_that_cannot_be_counted_are_refused(qps: float, pool: RequestPool) -> None:
    with pytest.raises(InputError, match=r"use a rate from 0 to 3e\+07 requests per second"):
        draw_arrivals(pool, Traffic("absurd", np.array([10.0, qps])), 0)


def test_the_highest_rate_is_counted_without_overflow(pool: RequestPool) -> None:
    counts = draw_arrivals(pool, Traffic("high", np.array([MOST_QPS])), 0)
    assert counts.sum() == pytest.approx(60 * MOST_QPS, rel=1e-3)
    assert counts.min() >= 0
