"""The simple balancers: constant prices, feedback, primal-dual steps and dither."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from marca_env.traffic.control import ControlObservation
from marca_env.utils.errors import InputError
from mpc import (
    Balancer,
    DitheredBalancer,
    FeedbackBalancer,
    FeedbackSettings,
    PrimalDualBalancer,
    StaticBalancer,
)


def observation(load, prices=(1.0,), budget=None, qps=100.0, minute=0, level=0) -> ControlObservation:
    load = np.atleast_1d(np.asarray(load, dtype=float))
    budget = np.ones_like(load) if budget is None else np.asarray(budget, dtype=float)
    zeros = np.zeros(len(load))
    return ControlObservation(
        minute, qps, load, budget, zeros.astype(int) + level, zeros, np.array(prices, dtype=float)
    )


def test_every_balancer_satisfies_the_protocol():
    for balancer in (StaticBalancer([1.0]), FeedbackBalancer(), PrimalDualBalancer(0.1)):
        assert isinstance(balancer, Balancer)
        DitheredBalancer(balancer, seed=0).reset()


def test_public_names_are_imported_on_first_use_and_unknown_names_are_errors():
    assert all(hasattr(mpc, name) for name in mpc.__all__)
    with pytest.raises(AttributeError, match=r"attribute '?MPC"):
        mpc.MPC  # noqa: B018


def test_static_prices_never_change():
    balancer = StaticBalancer([1.0, 2.0])
    balancer.update(observation([9.0, 0.1], (0, 0)))[0] = 7.0
    assert balancer.update(observation([np.nan, 0.1], (0, 0))).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("prices", [[-1.0], [np.nan], [[1.0]]])
def test_static_balancer_refuses_impossible_prices(prices):
    with pytest.raises(InputError, match="prices are"):
        StaticBalancer(prices)


def test_additive_feedback_matches_a_hand_computed_case():
    gains = FeedbackSettings(proportional=2.0, integral=0.0, derivative=1.0, form="additive", scale=0.5)
    balancer = FeedbackBalancer(gains, price_max=10.0)
    # λ + scale · (2 · error + 1 · change of the error); the first reading has no change
    assert balancer.update(observation([1.2])) == pytest.approx([1.0 + 0.5 * 2 * 0.2])
    assert balancer.update(observation([1.1], (1.2,))) == pytest.approx([1.2 + 0.5 * (2 * 0.1 - 0.1)])


def test_feedback_aims_below_the_budget_and_lower_while_degraded():
    gains = {"proportional": 1.0, "integral": 0.0, "derivative": 0.0, "form": "additive"}
    settings = FeedbackSettings(margin=0.02, release_margin=0.05, **gains)
    assert FeedbackBalancer(settings).update(observation([1.0])) == pytest.approx([1.02])
    assert FeedbackBalancer(settings).update(observation([1.0], level=1)) == pytest.approx([1.05])


def test_logarithmic_feedback_matches_a_hand_computed_case_and_leaves_zero():
    balancer = FeedbackBalancer(FeedbackSettings(proportional=1.0, integral=0.0, derivative=0.0, scale=2.0))
    expected = 2.0 * np.expm1(np.log1p(3.0 / 2.0) - 0.5)
    assert balancer.update(observation([0.5], (3.0,))) == pytest.approx([expected])
    assert balancer.update(observation([0.1], (0.1,))).tolist() == [0.0]
    assert balancer.update(observation([1.3], (0.0,))) == pytest.approx([2.0 * np.expm1(0.3)])


def integrating(**changes) -> FeedbackBalancer:
    gains = {"proportional": 0.0, "integral": 1.0, "derivative": 0.0, "form": "additive", "near": 0.1}
    return FeedbackBalancer(FeedbackSettings(**{**gains, **changes}))


def test_integrator_starts_only_after_readings_near_the_target():
    balancer = integrating(start_after=3)
    moves = [float(balancer.update(observation([load]))[0]) - 1.0 for load in (1.5, 1.05, 1.05, 1.05, 1.05)]
    assert moves == pytest.approx([0, 0, 0, 0.05, 0.1])  # the overload of 0.5 was never summed


def test_integrator_is_reset_after_readings_well_below_the_target():
    balancer = integrating(start_after=1, below=0.15, reset_after=2)
    for _ in range(4):
        balancer.update(observation([1.05]))
    assert balancer.update(observation([0.8])) == pytest.approx([1.0])  # 0.2 summed so far, then 0.2 subtracted
    balancer.update(observation([1.05], (1.0,)))
    balancer.update(observation([0.8]))
    assert balancer.update(observation([0.8])) == pytest.approx(
        [1.0]
    )  # second in a row: the integrator is reset, no move


def test_idle_hours_at_price_zero_do_not_wind_up_the_integrator():
    idle, fresh = (FeedbackBalancer(FeedbackSettings(integral=0.3, below=0.5, derivative=0.0)) for _ in range(2))
    for _ in range(600):
        assert idle.update(observation([0.95], (0.0,))).tolist() == [0.0]
    assert idle.update(observation([1.08], (0.0,))) >= fresh.update(observation([1.08], (0.0,)))


def test_feedback_holds_the_price_if_telemetry_is_unusable():
    balancer = FeedbackBalancer()
    for bad in (observation([np.nan], (3.0,)), observation([1.0], (3.0,), qps=np.nan), observation([-1.0], (3.0,))):
        assert balancer.update(bad).tolist() == [3.0]


def test_primal_dual_matches_a_hand_computed_case_and_averages_its_window():
    balancer = PrimalDualBalancer(2.0, window=2)
    assert balancer.update(observation([1.1])) == pytest.approx([1.2])
    assert balancer.update(observation([1.3], (1.2,))) == pytest.approx([1.2 + 2 * 0.2])
    assert balancer.update(observation([0.1], (0.1,))).tolist() == [0.0]
    balancer.reset()
    assert balancer.update(observation([1.1])) == pytest.approx([1.2])


def test_dither_is_seeded_and_centred_and_does_not_disturb_its_base():
    runs = []
    for _ in range(2):
        balancer = DitheredBalancer(StaticBalancer([2.0]), seed=5, spread=0.4, zero=0.0)
        runs.append([float(balancer.update(observation([1.0]))[0]) for _ in range(4000)])
    assert runs[0] == runs[1]
    logs = np.log(np.array(runs[0]) / 2.0)
    assert abs(logs.mean()) < 0.05
    assert logs.std() == pytest.approx(0.4, rel=0.1)
    base = FeedbackBalancer(FeedbackSettings(integral=0.0))
    balancer = DitheredBalancer(base, seed=0, spread=1.0)
    price = 1.0
    for _ in range(200):  # at the target the base holds its price, so the disturbed one does not drift
        price = float(balancer.update(observation([1.0], (price,)))[0])
    assert balancer._undisturbed == pytest.approx([1.0])


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


def test_an_unknown_form_of_feedback_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'logarithmic'"):
        FeedbackSettings(form="logaritmic")


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
