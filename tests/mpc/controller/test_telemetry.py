"""Checks of the telemetry: values, minutes and gaps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from marca_env.utils.errors import InputError
from mpc.controller.telemetry import FaultError, RepeatedMinuteError, Timeline, check_observation
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
    for kind, changes in (
        ("missing", {"load": None}),
        ("telemetry", {"load": np.ones(3)}),
        ("telemetry", {"load": np.array(["x", "y"])}),
        ("missing", {"load": np.array([np.nan, 1.0])}),
        ("telemetry", {"load": np.array([-1.0, 1.0])}),
        ("telemetry", {"qps": "n/a"}),
        ("missing", {"qps": np.nan}),
        ("telemetry", {"qps": np.inf}),
        ("missing", {"minute": np.nan}),
        ("missing", {"minute": None}),
        ("missing", {"budget": np.array([1.0, np.nan])}),
        ("telemetry", {"budget": np.array([1.0, 0.0])}),
        ("missing", {"qps": 0.0}),  # while the load is that of a busy minute
        ("missing", {"state": "missing"}),
        ("stale", {"state": "stale"}),
        ("telemetry", {"state": "no-traffic"}),  # while requests came
    ):
        with pytest.raises(FaultError) as caught:
            check_observation(dataclasses.replace(good, **changes), names, False)
        assert (caught.value.kind, changes) == (kind, changes)
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
    # machines that are never idle, or whose load nobody measures at night: the sender says that no request came
    for changes in ({"load": 0.3 * pool.scenario.budgets}, {"load": np.full(2, np.nan)}, {"qps": np.nan}):
        said = dataclasses.replace(quiet, state="no-traffic", **changes)
        checked = check_observation(said, pool.scenario.cluster_names, False)
        assert (checked.state, checked.qps) == ("no-traffic", 0.0)
        assert np.isfinite(checked.load).all()


def test_the_timeline_finds_repeats_gaps_and_a_reset_clock():
    timeline = Timeline(patience=2)
    assert [timeline.advance(m) for m in (1438, 1439, 0, 1, None, 3)] == [0] * 6
    assert timeline.advance(8) == 4
    for minute in (8, 5):
        with pytest.raises(FaultError) as caught:
            timeline.advance(minute)
        assert caught.value.kind == "stale"
        assert isinstance(caught.value, RepeatedMinuteError)
    timeline.advance(6)  # a third one in a row: the clock was set back
    assert timeline.advance(7) == 0
    timeline.reset()
    assert timeline.advance(100) == 0
