"""All planning methods: the same objective, bounds and protocol."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.utils.errors import InputError
from mpc import MPCBalancer
from mpc.planning.alternatives.registry import PLANNING_METHODS, make_planning_method
from mpc.planning.deadline import Deadline, DeadlineError
from mpc.planning.planning_method import PlannerSettings, PlanResult
from mpc.planning.predicted_loads import ModelError, PredictedLoads
from tests.helpers.small_system import fitted

TOP = np.array([5.0, 5.0])
LIMITED = tuple(m for m in PLANNING_METHODS if m != "lbfgsb")


def make_method(name, settings=None, **options):
    return make_planning_method(name, 2, settings or PlannerSettings(horizon=6), TOP, **options)


@pytest.mark.parametrize("name", PLANNING_METHODS)
def test_every_method_keeps_the_bounds_and_never_ends_above_its_start(problems, name):
    method = make_method(name)
    for predicted, start in problems[:4]:
        result = method.plan(predicted, start)
        assert isinstance(result, PlanResult)
        first = predicted.linearise(np.broadcast_to(np.clip(start.in_force, 0, TOP), (6, 2)))
        initial = float(method.objective(first.loads, start.load, start.target))
        assert result.objective <= initial + 1e-9
        assert result.objective == pytest.approx(float(method.objective(result.plan.loads, start.load, start.target)))
        assert np.all((result.plan.log_prices >= 0) & (result.plan.log_prices <= TOP))
        assert result.iterations >= 1
        assert result.seconds > 0


def test_descent_methods_agree_and_sampling_is_not_better(problems):
    for predicted, start in problems[:4]:
        reached = {name: make_method(name).plan(predicted, start).objective for name in PLANNING_METHODS}
        for name in ("slsqp", "lbfgsb", "gradient"):
            assert reached[name] <= 1.05 * reached["scp"] + 1e-4, name
        assert reached["cem"] >= reached["scp"] - 1e-5
        assert reached["shooting"] >= reached["scp"] - 1e-5


@pytest.mark.parametrize("name", LIMITED)
def test_rate_limits_hold(problems, name):
    method = make_method(name, PlannerSettings(horizon=6, rate_limit=0.1))
    for predicted, start in problems[:3]:
        prices = np.vstack([start.in_force, method.plan(predicted, start).plan.log_prices])
        assert np.abs(np.diff(prices, axis=0)).max() <= 0.1 + 1e-3


def test_quasi_newton_refuses_a_rate_limit_and_unknown_methods_name_the_nearest():
    with pytest.raises(InputError, match="rate limit"):
        make_method("lbfgsb", PlannerSettings(rate_limit=0.1))
    with pytest.raises(InputError, match="did you mean 'lbfgsb'"):
        make_method("lbfgs")
    with pytest.raises(InputError, match="did you mean 'gradient'"):
        MPCBalancer(fitted()[2], method="gradiant")
    for name, options in (("shooting", {"samples": 0}), ("cem", {"elite": 1.5}), ("lbfgsb", {"starts": 0})):
        with pytest.raises(InputError):
            make_method(name, **options)


@pytest.mark.parametrize("name", PLANNING_METHODS)
def test_a_deadline_ends_the_search(problems, name):
    predicted, start = problems[0]
    method = make_method(name)
    if name == "scp":
        with pytest.raises(DeadlineError, match="raise the deadline"):
            method.plan(predicted, start, deadline=Deadline(0.0))
        return
    result = method.plan(predicted, start, deadline=Deadline(0.0))
    assert result.reason == "deadline"
    assert np.isfinite(result.plan.log_prices).all()


def test_every_method_raises_for_a_broken_model(problems):
    predicted, start = problems[0]
    predicted = PredictedLoads(predicted.costs, np.ones(6), np.ones(2), bias=np.nan)
    for name in PLANNING_METHODS:
        with pytest.raises(ModelError, match="not finite"):
            make_method(name).plan(predicted, start)


def test_random_methods_are_seeded(problems):
    predicted, start = problems[2]
    for name in ("shooting", "cem"):
        first, second, other_seed = (make_method(name, seed=s).plan(predicted, start).objective for s in (1, 1, 2))
        assert first == second != other_seed
    at_once, one_by_one = (make_method("shooting", batched=b).plan(predicted, start).objective for b in (True, False))
    assert at_once == pytest.approx(one_by_one)
    assert make_method("shooting", spread=None).plan(predicted, start).objective > 0
