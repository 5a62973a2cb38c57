"""The five policies on a small scenario with analytic models: they are built, they run, and they hold the budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.days import calibration as calibration_module
from benchmarks.days import policies
from benchmarks.days.calibration import Calibration
from benchmarks.days.policies import build_policy
from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.day_simulator import clairvoyant_bound, replay
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.utilisation import overutilisation, utilisation
from marca_env.traffic.workload import Traffic, daily_traffic
from marca_env.utils.errors import InputError


@pytest.fixture(scope="module")
def calibration(exact_engine: Engine, tiny_scenario: Scenario) -> Calibration:
    """A calibration at a rate for which the budgets bind."""
    scenario = tiny_scenario.replace(peak_qps=110.0)
    engine = Engine(scenario, exact_engine.cost_model, exact_engine.revenue_model, exact_engine.population)
    return Calibration(engine)


@pytest.fixture(scope="module")
def traffic(calibration: Calibration) -> Traffic:
    """Three hours of an evening peak, with the day before."""
    day = daily_traffic(calibration.scenario, np.random.default_rng(7), minutes=2 * 1440)
    return Traffic("evening", day.qps[1440 + 1020 : 1440 + 1200], 1020, history=day.qps[1020 : 1440 + 1020])


Days = tuple[dict[str, pd.DataFrame], RequestPool, np.ndarray, dict[str, Any]]


@pytest.fixture(scope="module")
def days(calibration: Calibration, traffic: Traffic) -> Days:
    """Minutes of every policy, with the requests, the arrivals and the policies."""
    patch = pytest.MonkeyPatch()
    patch.setattr(calibration_module, "PROPORTIONAL", (0.4,))
    patch.setattr(calibration_module, "GAIN_MARGINS", (0.0, 0.015))
    pool = calibration.engine.pool(400, seed=9)

    def values(states: np.ndarray) -> np.ndarray:
        return calibration.engine.table(states)[0]

    counts, history = draw_arrivals(pool, traffic, 0), traffic.history_days()
    built = {name: build_policy(name, calibration, pool.states, values, history) for name in policies.POLICIES}
    patch.undo()
    return {name: replay(policy, pool, traffic, counts) for name, policy in built.items()}, pool, counts, built


@pytest.mark.slow
def test_learnt_prices_beat_truncation_beat_static_and_none_beats_the_bound(days: Days) -> None:
    rows, pool, counts, _ = days
    revenue = {name: frame["revenue"].sum() for name, frame in rows.items()}
    assert revenue["static"] < revenue["dcaf"] < revenue["marca-mpc"]
    assert revenue["marca-mpc"] > 0.95 * revenue["marca-feedback"]
    assert max(revenue.values()) <= clairvoyant_bound(pool, counts) * (1 + 1e-6)


def test_mpc_uses_the_budget_and_keeps_to_it(days: Days, calibration: Calibration) -> None:
    rows, _, _, built = days
    load = rows["marca-mpc"][[f"load_{c}" for c in calibration.scenario.cluster_names]].to_numpy()
    assert (overutilisation(load, calibration.scenario.budgets) < 0.02).all()
    assert utilisation(load, calibration.scenario.budgets).max() > 0.95
    assert not built["marca-mpc"].balancer.events


def test_the_day_before_starts_at_midnight_in_the_table(traffic: Traffic) -> None:
    assert traffic.history is not None
    assert traffic.history_days().shape == (1, 1440)
    assert traffic.history_days()[0, 1020] == pytest.approx(traffic.history[0])  # the trace starts at 17:00


def test_a_budget_that_nothing_fits_is_refused(calibration: Calibration) -> None:
    engine = calibration.engine
    scenario = engine.scenario.replace(peak_qps=5000.0)
    engine = Engine(scenario, engine.cost_model, engine.revenue_model, engine.population)
    with pytest.raises(InputError, match="even the cheapest joint action needs"):
        _ = Calibration(engine).static_action


def test_an_unknown_policy_names_the_nearest(calibration: Calibration) -> None:
    with pytest.raises(InputError, match="did you mean 'marca-mpc'"):
        build_policy("marca_mpc", calibration, calibration.pool.states)
