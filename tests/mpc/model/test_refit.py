"""Refits of the system model to recent minutes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from marca_env.utils.errors import InputError
from mpc.model.forecast_errors import one_step_errors
from mpc.model.refit import Refit
from mpc.model.transitions import Transitions
from tests.helpers.small_system import fitted


@pytest.fixture(scope="module")
def system():
    return fitted()


def scaled(log, factor=1.0, weight=1.0, minutes=60, start=600):
    """Return minutes of the log with ``factor`` times the cost of ranking and its price divided by ``weight``."""
    part = log.iloc[start : start + minutes].reset_index(drop=True)
    return part.assign(load_ranking=factor * part["load_ranking"], price_ranking=part["price_ranking"] / weight)


def test_a_refit_finds_cost_and_price_factors(system):
    _, log, model = system
    refit = Refit(model, scaled(log, 2.0, 1.6), epochs=0)
    assert refit.done
    assert refit.factors[0] == pytest.approx([1.0, 2.0], rel=0.1)
    assert refit.factors[1] == pytest.approx([1.0, 1.6], rel=0.2)
    # at prices and hours outside its minutes, the refit is much closer to the changed system than the old model
    elsewhere = Transitions(scaled(log, 2.0, 1.6, minutes=200, start=1600), model.clusters)
    new, old = (np.abs(one_step_errors(m, elsewhere, elsewhere.starts)).mean(0) for m in (refit.model, model))
    assert new[1] < 0.3 * old[1]


def test_a_refit_does_not_change_the_old_model_and_is_reproducible(system):
    _, log, model = system
    before = {name: tensor.clone() for name, tensor in model.response.state_dict().items()}
    refit = Refit(model, scaled(log, 2.0), epochs=15, learning_rate=0.003, seed=1)
    refit.advance(4)
    assert not refit.done
    refit.advance(100)
    assert refit.done
    assert all((before[name] == tensor).all() for name, tensor in model.response.state_dict().items())
    new_errors, old_errors = refit.held_out_errors()
    assert new_errors.shape == old_errors.shape == (2,)
    assert np.all(refit.model.price_limit >= model.price_limit)
    assert np.all(refit.model.coverage["log_cost"][1] >= model.coverage["log_cost"][1])
    again = Refit(model, scaled(log, 2.0), epochs=15, learning_rate=0.003, seed=1)
    again.advance(15)
    assert again.held_out_errors()[0] == pytest.approx(new_errors)


def test_a_refit_refuses_too_few_minutes(system):
    _, log, model = system
    with pytest.raises(InputError, match="at least 12"):
        Refit(model, log.head(8))


def test_synthetic_minutes_have_the_costs_that_the_refit_predicts(system):
    _, log, model = system
    refit = Refit(model, scaled(log, 2.0), epochs=0)
    synthetic = refit._synthetic_minutes(50, np.random.default_rng(0))
    assert isinstance(synthetic, pd.DataFrame)
    errors = one_step_errors(refit.model, Transitions(synthetic, model.clusters), 2 * np.arange(50))
    assert np.abs(errors).max() < 1e-9
