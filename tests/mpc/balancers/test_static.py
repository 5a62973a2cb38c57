"""The balancer of constant prices."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.utils.errors import InputError
from mpc import (
    StaticBalancer,
)
from tests.helpers.control_observation import observation


def test_static_prices_never_change():
    balancer = StaticBalancer([1.0, 2.0])
    balancer.update(observation([9.0, 0.1], (0, 0)))[0] = 7.0
    assert balancer.update(observation([np.nan, 0.1], (0, 0))).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("prices", [[-1.0], [np.nan], [[1.0]]])
def test_static_balancer_refuses_impossible_prices(prices):
    with pytest.raises(InputError, match="prices are"):
        StaticBalancer(prices)
