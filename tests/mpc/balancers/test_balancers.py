"""The simple balancers: constant prices, feedback, primal-dual steps and dither."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from marca_env.utils.errors import InputError
from mpc import (
    Balancer,
    DitheredBalancer,
    FeedbackBalancer,
    FeedbackSettings,
    PrimalDualBalancer,
    StaticBalancer,
)
from tests.helpers.control_observation import observation


def test_every_balancer_satisfies_the_protocol():
    for balancer in (StaticBalancer([1.0]), FeedbackBalancer(), PrimalDualBalancer(0.1)):
        assert isinstance(balancer, Balancer)
        DitheredBalancer(balancer, seed=0).reset()


def test_public_names_are_imported_on_first_use_and_unknown_names_are_errors():
    assert all(hasattr(mpc, name) for name in mpc.__all__)
    with pytest.raises(AttributeError, match=r"attribute '?MPC"):
        mpc.MPC  # noqa: B018


@pytest.mark.parametrize(
    "make",
    [
        lambda: FeedbackSettings(form="log"),
        lambda: FeedbackSettings(proportional=-1),
        lambda: FeedbackSettings(scale=0.0),
        lambda: FeedbackSettings(start_after=0),
        lambda: FeedbackSettings(margin=1.0),
        lambda: FeedbackBalancer(price_max=np.inf),
        lambda: PrimalDualBalancer(0.0),
        lambda: PrimalDualBalancer(1.0, window=0),
        lambda: DitheredBalancer(FeedbackBalancer(), seed=0, memory=1.0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InputError):
        make()


any_float = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(any_float, any_float, any_float), min_size=1, max_size=12))
def test_prices_stay_finite_and_bounded_for_any_telemetry(readings):
    for balancer in (
        FeedbackBalancer(price_max=50.0),
        FeedbackBalancer(FeedbackSettings(form="additive"), price_max=50.0),
        PrimalDualBalancer(1.0, window=3, price_max=50.0),
        DitheredBalancer(FeedbackBalancer(price_max=50.0), seed=1, price_max=50.0),
    ):
        for load, qps, price in readings:
            prices = balancer.update(observation([load], (price,), qps=qps))
            assert prices.shape == (1,)
            assert 0.0 <= prices[0] <= 50.0
