"""Checks of the telemetry: values, minutes and gaps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from marca_env.utils.errors import InputError
from mpc.controller.telemetry import FaultError, Timeline, check_observation
from tests.helpers.small_system import fitted, observe


@pytest.fixture(scope="module")
def system():
    pool, _, model = fitted()
    return pool, model


def test_damaged_observations_are_telemetry_faults_and_other_clusters_an_input_error(system):
    pool, _ = system
    names, good = pool.scenario.cluster_names, observe(pool)
    checked = check_observation(dataclasses.replace(good, degradation=np.array([np.nan, 2.0])), names, True)
    assert checked.degradation.tolist() == [0, 2]
    for changes in (
        {"load": None},
        {"load": np.ones(3)},
        {"load": np.array(["x", "y"])},
        {"qps": "n/a"},
        {"minute": np.nan},
        {"minute": None},
        {"budget": np.array([1.0, 0.0])},
        {"qps": 0.0},  # while the load is that of a busy minute
    ):
        with pytest.raises(FaultError) as caught:
            check_observation(dataclasses.replace(good, **changes), names, False)
        assert caught.value.kind == "telemetry"
    with pytest.raises(InputError, match="fit one on a log of this scenario"):
        check_observation(dataclasses.replace(good, load=np.ones(3)), names, True)
    with pytest.raises(FaultError):
        check_observation(object(), names, True)


def test_a_minute_without_traffic_is_no_fault(system):
    pool, _ = system
    quiet = observe(pool, qps=0.0, load=np.zeros(2))
    assert check_observation(quiet, pool.scenario.cluster_names, False).qps == 0.0
    lingering = observe(pool, qps=0.0, load=0.04 * pool.scenario.budgets)  # the last requests are still served
    assert check_observation(lingering, pool.scenario.cluster_names, False).qps == 0.0


def test_the_timeline_finds_repeats_gaps_and_a_reset_clock():
    timeline = Timeline(patience=2)
    assert [timeline.advance(m) for m in (1438, 1439, 0, 1, None, 3)] == [0] * 6
    assert timeline.advance(8) == 4
    for minute in (8, 5):
        with pytest.raises(FaultError) as caught:
            timeline.advance(minute)
        assert caught.value.kind == "stale"
    timeline.advance(6)  # a third one in a row: the clock was set back
    assert timeline.advance(7) == 0
    timeline.reset()
    assert timeline.advance(100) == 0
