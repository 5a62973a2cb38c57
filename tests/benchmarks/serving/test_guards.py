"""Guard rails: they act after several readings beyond a limit, and end as documented."""

from __future__ import annotations

import pytest

from benchmarks.serving.guards import GuardLimits, GuardRails
from marca_env.utils.errors import InputError


def test_the_load_guard_acts_after_three_readings_and_ends_after_ten():
    guards = GuardRails(GuardLimits(load=1.2))
    assert [bool(guards.observe({"load": load})) for load in (1.3, 1.3, 1.1, 1.3, 1.3)] == [False] * 5
    (change,) = guards.observe({"load": 1.25})
    assert change == "guard load acts, static rule in force: load 1.25 above 1.2 in 3 readings"
    assert list(guards.active) == ["load"]
    changes = [guards.observe({"load": 0.9}) for _ in range(10)]
    assert [bool(c) for c in changes] == [False] * 9 + [True]
    assert not guards.active


def test_the_revenue_guard_stays_until_it_is_cleared():
    guards = GuardRails(GuardLimits(revenue=0.2, patience=1, recovery=1))
    assert guards.observe({"revenue": 0.1})
    guards.observe({"revenue": 5.0})
    assert list(guards.active) == ["revenue"]
    guards.clear()
    assert not guards.active


def test_what_was_not_measured_changes_nothing():
    guards = GuardRails(GuardLimits(load=1.0, late=0.05, patience=2))
    guards.observe({"load": 2.0, "late": None})
    guards.observe({"load": float("nan")})
    guards.observe({})
    assert guards.observe({"load": 2.0})


def test_guards_survive_a_restart():
    guards = GuardRails(GuardLimits(late=0.05, patience=2))
    guards.observe({"late": 0.5})
    again = GuardRails(guards.limits)
    again.load_state_dict(guards.state_dict())
    again.observe({"late": 0.5})
    assert list(again.active) == ["late"]
    with pytest.raises(InputError, match="damaged"):
        again.load_state_dict({"active": 3})


@pytest.mark.parametrize("limits", [{"load": -1.0}, {"late": float("nan")}, {"patience": 0}])
def test_limits_out_of_range_are_refused(limits):
    with pytest.raises(InputError):
        GuardLimits(**limits)
