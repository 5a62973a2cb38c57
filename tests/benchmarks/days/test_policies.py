"""The five policies on a small scenario whose law is known: they are built, they run, and they hold the budget."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.days import policies
from benchmarks.days.policies import Commissioning, build_policy
from marca_env.traffic.day_simulator import clairvoyant_bound, replay
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.utilisation import overutilisation, utilisation
from marca_env.traffic.workload import Traffic, daily_traffic
from marca_env.utils.errors import InputError


@pytest.fixture(scope="module")
def known(exact_engine, tiny_scenario):
    scenario = tiny_scenario.replace(peak_qps=110.0)  # binds at the peak
    exact_engine = type(exact_engine)(
        scenario, exact_engine.cost_model, exact_engine.revenue_model, exact_engine.population
    )
    day = daily_traffic(scenario, np.random.default_rng(7), minutes=2 * 1440)
    traffic = Traffic("evening", day.qps[1440 + 1020 : 1440 + 1200], 1020, history=day.qps[1020 : 1440 + 1020])
    return Commissioning(scenario, exact_engine, traffic)


@pytest.fixture(scope="module")
def days(known):
    """Minutes of every policy over three hours of an evening peak."""
    patch = pytest.MonkeyPatch()
    patch.setattr(policies, "GAINS", [(0.4, 0.0, 0.0), (0.4, 0.02, 0.015)])
    pool = known.engine.pool(400, seed=9)

    def values(states):
        return known.engine.table(states)[0]

    counts = draw_arrivals(pool, known.traffic, 0)
    built = {name: build_policy(name, known, pool.states, values, values) for name in policies.POLICIES}
    patch.undo()
    return {name: replay(policy, pool, known.traffic, counts) for name, policy in built.items()}, pool, counts, built


def test_learnt_prices_beat_truncation_beat_static_and_none_beats_the_bound(days):
    rows, pool, counts, _ = days
    revenue = {name: frame["revenue"].sum() for name, frame in rows.items()}
    assert revenue["static"] < revenue["dcaf"] < revenue["marca-mpc"]
    assert revenue["marca-mpc"] > 0.95 * revenue["marca-feedback"]
    assert max(revenue.values()) <= clairvoyant_bound(pool, counts) * (1 + 1e-6)


def test_mpc_uses_the_budget_and_keeps_to_it(days, known):
    rows, _, _, built = days
    load = rows["marca-mpc"][[f"load_{c}" for c in known.scenario.cluster_names]].to_numpy()
    assert (overutilisation(load, known.scenario.budgets) < 0.02).all()
    assert utilisation(load, known.scenario.budgets).max() > 0.95
    assert not built["marca-mpc"].balancer.events


def test_what_policies_know_is_not_what_judges_them(known):
    assert len(known.states) == policies.SAMPLE
    assert known.traffic.history_days().shape == (1, 1440)
    # the day before starts at 17:00 of the trace's clock; midnight comes first in the table
    assert known.traffic.history_days()[0, 1020] == pytest.approx(known.traffic.history[0])


def test_a_budget_that_nothing_fits_is_refused(known):
    scenario = known.scenario.replace(peak_qps=5000.0)
    with pytest.raises(InputError, match="even the cheapest joint action needs"):
        _ = Commissioning(scenario, known.engine, known.traffic).static_action


def test_unknown_policy_names_the_nearest(known):
    with pytest.raises(InputError, match="did you mean 'marca-mpc'"):
        build_policy("marca_mpc", known, known.states, None, None)


def test_two_passes_compare_gains_at_the_middle_margin_then_margins():
    tried = []

    def best(candidates):
        tried.extend(candidates)
        return max(candidates, key=lambda c: (c[0] == 2.0, c[-1]))

    assert policies.two_passes(best, [(p, m) for p in (1.0, 2.0) for m in (0.0, 0.1, 0.2)]) == (2.0, 0.2)
    assert tried == [(1.0, 0.1), (2.0, 0.1), (2.0, 0.0), (2.0, 0.1), (2.0, 0.2)]
    assert policies.two_passes(best, [(0.3,), (0.1,)]) == (0.3,)
