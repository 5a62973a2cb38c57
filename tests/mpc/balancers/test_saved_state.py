"""The memory of balancers as JSON: a restarted one continues as if nothing had happened."""

from __future__ import annotations

import json

import numpy as np
import pytest

from marca_env.utils.errors import InputError
from mpc import BisectionBalancer, FeedbackBalancer, FeedbackSettings, PrimalDualBalancer
from tests.helpers.small_system import make_pool, observe


def balancers():
    pool = make_pool(per_window=5)
    values, costs = pool.outcomes["revenue"], pool.costs
    return pool, {
        "feedback": lambda: FeedbackBalancer(FeedbackSettings(scale=2.0, derivative=0.1)),
        "primal-dual": lambda: PrimalDualBalancer(0.5, window=4),
        "bisection": lambda: BisectionBalancer(values, costs, tolerance=0.05),
    }


@pytest.mark.parametrize("name", ["feedback", "primal-dual", "bisection"])
@pytest.mark.parametrize("minutes", [0, 7])
def test_a_restored_balancer_sets_the_same_prices(name, minutes):
    pool, builders = balancers()
    rng = np.random.default_rng(1)
    loads = pool.scenario.budgets * rng.uniform(0.9, 1.1, (minutes + 5, 2))
    first, prices = builders[name](), np.array([3.0, 3.0])
    for k in range(minutes):
        prices = first.update(observe(pool, minute=600 + k, load=loads[k], prices=prices))
    second = builders[name]()
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    for k in range(minutes, minutes + 5):
        seen = observe(pool, minute=600 + k, load=loads[k], prices=prices)
        prices = first.update(seen)
        assert second.update(seen).tolist() == prices.tolist()


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("feedback", {"error_sum": [1.0, 2.0], "near_count": [1.0], "below_count": [0, 0], "last_error": None}),
        ("feedback", {"error_sum": "x"}),
        ("feedback", {"error_sum": [None, 1.0]}),
        ("primal-dual", {"errors": [[1.0], [1.0, 2.0]]}),
        ("primal-dual", {"errors": {}}),
        ("bisection", {"prices": [1.0, 2.0, 3.0]}),
        ("bisection", {"prices": [[1.0, 2.0]]}),
        ("bisection", []),
    ],
)
def test_a_damaged_state_is_named(name, state):
    _, builders = balancers()
    with pytest.raises(InputError, match="saved state"):
        builders[name]().load_state_dict(state)
