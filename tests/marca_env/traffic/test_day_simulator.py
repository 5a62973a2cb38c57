"""The simulated day: sums of its minutes, arrivals shared between policies, and the bound."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.control import ControlObservation
from marca_env.traffic.day_simulator import clairvoyant_bound, replay
from marca_env.traffic.policies import FixedPolicy, PricedPolicy
from marca_env.traffic.simulated_system import SimulatedSystem, SystemChanges, draw_arrivals
from marca_env.traffic.workload import Traffic
from mpc import BisectionBalancer, FeedbackBalancer, FeedbackSettings, StaticBalancer
from tests.helpers.factories import make_timed_engine
from tests.helpers.small_system import make_pool


@pytest.fixture(scope="module")
def pool(exact_engine: Engine) -> RequestPool:
    return exact_engine.pool(60, seed=0)


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic("ramp", np.linspace(10.0, 90.0, 45), first_minute=700)


def test_a_fixed_cheap_policy_earns_what_the_table_says(pool, traffic):
    counts = draw_arrivals(pool, traffic, seed=1)
    rows = replay(FixedPolicy("cheapest", 0), pool, traffic, counts)
    assert np.allclose(rows["revenue"], counts @ pool.outcomes["revenue"][:, 0], rtol=1e-5)
    assert np.allclose(rows["load_ranking"], counts @ pool.costs[:, 0, 1] / 60, rtol=1e-5)
    assert (rows["degradation_ranking"] == 0).all()
    assert np.array_equal(rows["requests"], counts.sum(axis=1))


def test_the_most_expensive_action_overloads_and_is_degraded(pool, traffic):
    counts = draw_arrivals(pool, traffic, seed=1)
    most_expensive = pool.scenario.n_joint_actions - 1
    rows = replay(FixedPolicy("most expensive", most_expensive), pool, traffic, counts)
    undegraded = counts @ pool.outcomes["revenue"][:, most_expensive]
    assert rows["degradation_ranking"].max() > 0
    assert rows["revenue"].to_numpy()[-1] < undegraded[-1]


def test_arrivals_are_seeded_and_of_the_current_window(pool, traffic):
    one, two = draw_arrivals(pool, traffic, 1), draw_arrivals(pool, traffic, 1)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, draw_arrivals(pool, traffic, 2))
    windows = pool.states[:, pool.scenario.feature_names.index("w")]
    assert set(windows[one[0] > 0]) == {700 * 4 // 1440}


def test_prices_hold_the_budget_and_no_policy_beats_the_bound(pool, traffic):
    counts = draw_arrivals(pool, traffic, seed=3)
    bound = clairvoyant_bound(pool, counts)
    values = pool.outcomes["revenue"]
    balancer = BisectionBalancer(values, pool.costs, weights=pool.weights)
    held = replay(PricedPolicy("held", values, pool.costs, balancer), pool, traffic, counts)
    free = replay(PricedPolicy("free", values, pool.costs, StaticBalancer([0.0, 0.0])), pool, traffic, counts)
    cheap = replay(FixedPolicy("cheapest", 0), pool, traffic, counts)
    assert cheap["revenue"].sum() < held["revenue"].sum() <= bound * (1 + 1e-6)
    assert held["load_ranking"].max() < free["load_ranking"].max()
    assert held["price_ranking"].iloc[-1] > held["price_ranking"].iloc[0]


def test_a_policy_limited_to_one_action_is_the_fixed_policy(pool, traffic):
    counts = draw_arrivals(pool, traffic, seed=3)
    keep = np.array([0])
    balancer = StaticBalancer([0.0, 0.0])
    limited = PricedPolicy("limited", pool.outcomes["revenue"], pool.costs, balancer, keep)
    rows = replay(limited, pool, traffic, counts)
    fixed = replay(FixedPolicy("cheapest", 0), pool, traffic, counts)
    assert np.allclose(rows["revenue"], fixed["revenue"])


def test_a_loss_of_machines_is_observed_a_minute_later(pool: RequestPool) -> None:
    budgets: list[np.ndarray] = []

    class RecordingBalancer(FeedbackBalancer):
        def update(self, observation: ControlObservation) -> np.ndarray:
            budgets.append(observation.budget.copy())
            return super().update(observation)

    traffic = Traffic("flat", np.full(6, 40.0))
    changes = SystemChanges.none(6, 2)
    changes.capacity[3:5] = 0.5
    policy = PricedPolicy("recording", pool.outcomes["revenue"], pool.costs, RecordingBalancer())
    minutes = replay(policy, pool, traffic, draw_arrivals(pool, traffic, 0), changes=changes)
    budget = pool.scenario.budgets[0]
    assert (minutes["budget_retrieval"] / budget).tolist() == pytest.approx([1, 1, 1, 0.5, 0.5, 1])
    assert [b[0] / budget for b in budgets] == pytest.approx([1, 1, 1, 1, 0.5, 0.5])


def test_latency_of_a_minute_follows_from_service_and_load(tiny_scenario, exact_law, traffic):
    """At little load requests take their service time; at much load they wait, are late and earn the fallback."""
    pool = make_timed_engine(tiny_scenario, exact_law, 0.02).pool(60, seed=0)
    counts = draw_arrivals(pool, traffic, seed=1)
    cheap = replay(FixedPolicy("cheapest", 0), pool, traffic, counts)
    slow = replay(FixedPolicy("most expensive", pool.scenario.n_joint_actions - 1), pool, traffic, counts)
    service = pool.lateness.service.mean[:, 0]
    assert service.min() * 0.9 < cheap["latency_p50"][0] < service.max() * 1.1
    assert (cheap["latency_p99"] > cheap["latency_p50"]).all()
    assert np.allclose(cheap["revenue"][0], counts[0] @ pool.outcomes["revenue"][:, 0], rtol=1e-3)
    assert cheap["latency_p50"].iloc[-1] > 1.1 * cheap["latency_p50"][0]
    assert cheap["late"][0] < 1e-3 < 0.1 < cheap["late"].iloc[-1] < 0.5
    assert slow["late"].max() > 0.9
    worst = int(slow["late"].argmax())
    fallback = 0.5 * counts[worst] @ pool.lateness.on_time["revenue"][:, 0]
    on_time = counts[worst] @ pool.lateness.on_time["revenue"].max(axis=1) * (1 - slow["late"][worst])
    assert fallback * slow["late"][worst] * 0.99 < slow["revenue"][worst] < fallback + on_time


def test_days_without_a_limit_have_no_latency(pool, traffic):
    rows = replay(FixedPolicy("cheapest", 0), pool, traffic, draw_arrivals(pool, traffic, seed=1))
    assert "late" not in rows


def test_a_day_may_begin_without_traffic() -> None:
    """The system is then idle, and computation free, until requests come."""
    pool = make_pool(per_window=5)
    traffic = Traffic("quiet start", np.array([0.0, 0.0, 200.0]))
    counts = draw_arrivals(pool, traffic, 0)
    seen = SimulatedSystem(pool, traffic, counts).start(np.zeros(2))
    assert (seen.qps, seen.load.tolist()) == (0.0, [0.0, 0.0])
    balancer = FeedbackBalancer(FeedbackSettings(scale=2.0))
    rows = replay(PricedPolicy("feedback", pool.outcomes["revenue"], pool.costs, balancer), pool, traffic, counts)
    assert rows["price_ranking"].tolist()[:2] == [0.0, 0.0]
    assert rows["requests"].tolist()[:2] == [0, 0]
    assert rows["revenue"].iloc[2] > 0
