"""Online corrections of the system model."""

from __future__ import annotations

import numpy as np
import pytest

from mpc.controller.bias_correction import BiasCorrection


def closed_loop(tilt_gain, slope=-4.5, model_slope=-1.0, minutes=60, seed=0):
    """Return the deviations from the budget under drifting traffic, if log cost and model differ in slope."""
    rng, correction = np.random.default_rng(seed), BiasCorrection(1, 0.2, 4.0, tilt_gain)
    u, moved, deviations = np.zeros(1), np.zeros(1), []
    demand = np.cumsum(rng.normal(0, 0.01, minutes + 1))
    expected_log = None
    for k in range(minutes):
        log_cost = slope * u + rng.normal(0, 0.004, 1)
        if expected_log is not None:
            correction.update(log_cost, expected_log, moved, 1e5)
        deviations.append(float(log_cost[0] + demand[k]))
        # the price at which the corrected model predicts the budget
        total = model_slope + correction.tilt
        step = (-demand[k + 1] - model_slope * u - correction.bias) / total
        step = np.clip(step, -0.5, 0.5)
        expected_log = model_slope * (u + step) + correction.bias + correction.tilt * 0.15 * np.tanh(step / 0.15)
        moved, u = step, u + step
    return np.array(deviations)


def test_too_flat_a_slope_is_corrected_and_oscillation_ends():
    without, corrected = (np.abs([closed_loop(gain, seed=s)[20:] for s in range(5)]).mean() for gain in (0.0, 0.5))
    assert without > 0.03
    assert corrected < 0.5 * without


def test_a_right_slope_is_hardly_corrected():
    without, corrected = (
        np.abs([closed_loop(g, slope=-1.0, seed=s)[20:] for s in range(5)]).mean() for g in (0.0, 0.5)
    )
    assert corrected < 1.3 * without


def test_after_an_overshooting_move_the_next_moves_are_halved():
    """Check the limit of moves, needed where the load falls in one high step between two prices."""
    correction, in_force = BiasCorrection(1, bias_gain=0.2, bias_jump=4.0, tilt_gain=0.5), np.array([0.9])

    def next_move(error: float, moved: float) -> float:
        correction.update(np.array([error]), np.zeros(1), np.array([moved]), requests=20_000)
        return float(correction.limit_move(np.array([9.0]), in_force)[0] - in_force[0])

    assert next_move(0.02, -0.6) == pytest.approx(8.1)  # as predicted
    assert next_move(0.3, -0.1) == pytest.approx(8.1)  # a small move cannot have done that
    assert next_move(-0.3, -0.6) == pytest.approx(8.1)  # it did too little
    assert next_move(0.3, -0.6) == pytest.approx(0.3)  # it did far too much
    assert correction.limit_move(np.array([-9.0]), in_force) == pytest.approx([0.6])
    assert correction.limit_move(np.array([0.8]), in_force) == pytest.approx([0.8])
    assert next_move(0.25, 0.05) == pytest.approx(0.36)  # the bound is lifted step by step
    assert next_move(-0.3, 0.36) == pytest.approx(0.18)
    for _ in range(14):
        unlimited = next_move(0.0, 0.0)
    assert unlimited == pytest.approx(8.1)
    next_move(0.3, -0.6)
    correction.lift_limit()
    assert np.all(np.isinf(correction.move_limit))
    correction = BiasCorrection(1, bias_gain=0.2, bias_jump=4.0, tilt_gain=0.0)
    assert next_move(0.3, -0.6) == pytest.approx(8.1)


def test_a_few_requests_hardly_change_the_bias():
    """The cost of a single request is chance: half an hour of them leaves the bias near zero."""
    few, many = BiasCorrection(1, 0.2, 4.0, 0.0), BiasCorrection(1, 0.2, 4.0, 0.0)
    for k in range(30):
        error = np.array([(-1.0) ** k * 0.6])
        few.update(error, np.zeros(1), np.zeros(1), 1.0)
        many.update(error, np.zeros(1), np.zeros(1), 10_000.0)
    assert abs(few.bias[0]) < 0.01
    assert abs(many.bias[0]) > 0.02
