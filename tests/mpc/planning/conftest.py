"""Fixtures of the planning tests."""

from __future__ import annotations

import numpy as np
import pytest

from mpc.model.conditions import Conditions
from mpc.planning.objective import PlanStart
from mpc.planning.predicted_loads import PredictedLoads
from tests.helpers.small_system import fitted


@pytest.fixture(scope="module")
def system():
    pool, _, model = fitted()
    return pool, model


@pytest.fixture(scope="module")
def problems(system):
    """Return eight planning problems: traffic rises or falls, the load is from 15 % below to 40 % above the budget."""
    pool, model = system
    rng, response, problems = np.random.default_rng(0), model.array_response(), []
    for _ in range(8):
        prices, minute = np.exp(rng.normal(1.5, 0.7, 2)), int(rng.integers(1440))
        levels = np.zeros(2)
        last = Conditions(np.array(1.0), np.array(minute), levels)
        used = model.predict(pool.scenario.budgets, last, prices, last, prices)
        qps = float((pool.scenario.budgets * rng.uniform(0.85, 1.4, 2) / used).mean())
        growth = np.exp(np.cumsum(rng.normal(0.02 * rng.choice([-1, 1]), 0.01, 6)))
        last_minute = Conditions(np.array(qps), np.array(minute), levels)
        coming = Conditions(qps * growth, (minute + 1 + np.arange(6)) % 1440, np.zeros((6, 2)))
        load = qps * used * np.exp(rng.normal(0, 0.02, 2))
        predicted = PredictedLoads(
            response.horizon(load, last_minute, prices, coming), coming.qps, pool.scenario.budgets
        )
        problems.append(
            (predicted, PlanStart(model.prices.to_log(prices), load / pool.scenario.budgets, np.full(2, 0.995)))
        )
    return problems
