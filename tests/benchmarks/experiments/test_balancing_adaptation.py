"""Experiment ``balancing_adaptation``: recovery by hand, settings tuned before the change, changed requests."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.experiments.balancing_adaptation import adaptation_run, experiment
from benchmarks.experiments.balancing_adaptation.adaptation_run import (
    BEFORE,
    FEEDBACK,
    HOLD,
    MEAN,
    METHODS,
    recovery_around,
)
from benchmarks.experiments.balancing_adaptation.changing_system import with_costs, with_machines
from marca_env.utils.errors import InputError
from mpc import FeedbackSettings
from tests.helpers.small_system import fitted


@pytest.fixture(scope="module")
def system():
    return fitted()


def test_recovery_equals_values_by_hand():
    load = np.full((BEFORE + 180, 2), 1.0)
    load[BEFORE : BEFORE + 20] = 1.18  # overload for 20 minutes
    found = recovery_around(load, BEFORE)
    # a 15-minute mean with one overloaded minute is 1.2 % off
    assert found["recovery"] == [20, 19]
    assert found["before"] == [[1.0, 1.0], [0.0, 0.0]]
    assert found["after"][1] == pytest.approx([0.06, 0.06])
    load[BEFORE + 20 + HOLD + MEAN - 5] = 0.2  # too soon to count as recovered
    assert recovery_around(load, BEFORE)["recovery"][0] > 20 + HOLD
    load[BEFORE + 60 :: 20] = 0.5
    assert recovery_around(load, BEFORE)["recovery"][0] is None


def test_all_methods_start_with_the_settings_tuned_before_the_change(system):
    gains = FeedbackSettings(proportional=0.2, integral=0.0, margin=0.03)
    before = SimpleNamespace(model=system[2], feedback=gains, margin=0.02, release_margin=0.07)
    for method in METHODS:
        balancer, tuned = adaptation_run._balancer(method, before, seed=0)
        settings = getattr(balancer, "balancer", balancer).settings
        assert tuned == {name: getattr(settings, name) for name in tuned}
        if method == FEEDBACK:
            assert settings == gains
        else:
            assert (settings.margin, settings.release_margin) == (0.02, 0.07)


def test_cases_hold_the_grid_of_the_tuning():
    for case in experiment.cases(quick=False, seeds=(0,)):
        assert list(case.config["tuned"]) == ["gains" if case.method == FEEDBACK else "margins"]
        assert case.budget["tuning"] > 60


def test_a_changed_pool_keeps_everything_else(system):
    pool = system[0]
    costlier, fewer = with_costs(pool, "ranking", 2.0), with_machines(pool, 0.5)
    assert costlier.costs[..., 0] == pytest.approx(pool.costs[..., 0])
    assert costlier.costs[..., 1] == pytest.approx(2 * pool.costs[..., 1])
    assert fewer.scenario.budgets == pytest.approx(0.5 * pool.scenario.budgets)
    assert fewer.costs is pool.costs
    with pytest.raises(InputError, match="unknown cluster 'rankin'; did you mean 'ranking'"):
        with_costs(pool, "rankin", 2.0)
