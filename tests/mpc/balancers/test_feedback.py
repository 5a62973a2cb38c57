"""PID feedback."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.utils.errors import InputError
from mpc import (
    FeedbackBalancer,
    FeedbackSettings,
)
from tests.helpers.control_observation import observation


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


def test_an_unknown_form_of_feedback_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'logarithmic'"):
        FeedbackSettings(form="logaritmic")
