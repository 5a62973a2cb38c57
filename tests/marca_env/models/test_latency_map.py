"""The latency map: fitted curves, stages by hand, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marca_env.models.cost_map import CostMap
from marca_env.models.latency_map import FILE, TAIL, LatencyMap
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.factories import make_cost_log


def certain_log(scenario: Scenario, scale: float = 2.0) -> pd.DataFrame:
    """Return a cost log in which everything takes ``scale`` seconds a core-second, without spread."""
    log = make_cost_log(scenario)
    return log.assign(latency_p50=scale * log["cost"], latency_p99=scale * log["cost"])


def test_stages_follow_each_other_and_channels_run_side_by_side(tiny_scenario: Scenario) -> None:
    """Two-tower at 40 (2 ms of cost) is slower than popularity (1 ms), and only it counts."""
    latency_map = LatencyMap.from_log(tiny_scenario, certain_log(tiny_scenario))
    actions, results = np.array([[1, 2, 1, 1], [0, 2, 0, 1]]), np.array([[30.0, 30.0, 10.0]] * 2)
    retrieval = latency_map.stage(0, actions, results[:, 0])
    base, popularity, two_tower, rescoring = 2e-3, 1e-3, 2e-3, 3e-3
    np.testing.assert_allclose(retrieval.mean, 2 * np.array([base + two_tower + rescoring, base + popularity]))
    in_sequence = latency_map.stage(0, actions, results[:, 0], side_by_side=False)
    np.testing.assert_allclose(in_sequence.mean - retrieval.mean, 2 * np.array([popularity, 0.0]), atol=1e-12)
    later = 2 * (1e-3 + 30 * 5e-5 + 1e-3 + 10 * 6e-4)
    np.testing.assert_allclose(latency_map.total(actions, results).mean, retrieval.mean + later)


def test_tables_of_all_actions_are_those_of_single_requests(tiny_scenario: Scenario) -> None:
    latency_map = LatencyMap.from_log(tiny_scenario, make_cost_log(tiny_scenario))
    results = np.random.default_rng(0).integers(1, 60, (5, 36, 3)).astype(float)
    table = latency_map.total(tiny_scenario.joint_actions, results)
    alone = latency_map.total(tiny_scenario.joint_actions, results[2])
    np.testing.assert_array_equal(table.mean[2], alone.mean)
    np.testing.assert_array_equal(table.variance[2], alone.variance)


def test_repeats_count_by_their_median(tiny_scenario: Scenario) -> None:
    """One repeat that other work disturbed changes nothing."""
    log = certain_log(tiny_scenario)
    disturbed = log.assign(repeat=2, latency_p50=9.0, latency_p99=9.0)
    both = LatencyMap.from_log(tiny_scenario, pd.concat([log, log.assign(repeat=1), disturbed], ignore_index=True))
    once = LatencyMap.from_log(tiny_scenario, log)
    actions, results = tiny_scenario.joint_actions, np.full((36, 3), 20.0)
    np.testing.assert_allclose(both.total(actions, results).mean, once.total(actions, results).mean)


def test_what_was_not_measured_follows_from_its_cost(tiny_scenario: Scenario) -> None:
    """A second for each core-second, and a p99 of TAIL times that; empty cells count as not measured."""
    log = make_cost_log(tiny_scenario)
    ruled = LatencyMap.from_cost_map(CostMap.from_log(tiny_scenario, log))
    base = ruled.curves["ranking", "base"](np.zeros(()))
    np.testing.assert_allclose([base.quantile(0.5), base.quantile(0.99)], [1e-3, TAIL * 1e-3])
    queue = log["component"] == "queue"
    partly = log.assign(latency_p50=np.where(queue, np.nan, 0.5), latency_p99=np.where(queue, np.nan, 0.5))
    mixed = LatencyMap.from_log(tiny_scenario, partly)
    np.testing.assert_allclose(mixed.curves["ranking", "queue"](np.array(40.0)).quantile(0.5), 40 * 6e-4)
    np.testing.assert_allclose(mixed.curves["ranking", "base"](np.zeros(())).quantile(0.5), 0.5)


def test_a_map_comes_back_from_its_folder(tiny_scenario: Scenario, tmp_path: Path) -> None:
    latency_map = LatencyMap.from_log(tiny_scenario, make_cost_log(tiny_scenario))
    latency_map.save(tmp_path)
    again = LatencyMap.load(tmp_path, tiny_scenario)
    actions, results = tiny_scenario.joint_actions, np.full((36, 3), 20.0)
    np.testing.assert_array_equal(
        again.total(actions, results).quantile(0.99), latency_map.total(actions, results).quantile(0.99)
    )


def test_faults_name_the_place_and_the_remedy(tiny_scenario: Scenario, tmp_path: Path) -> None:
    log = certain_log(tiny_scenario)
    log.loc[3, "latency_p99"] = 0.0
    with pytest.raises(InputError, match=r"row 4, column 'latency_p99'.*correct it"):
        LatencyMap.from_log(tiny_scenario, log)
    with pytest.raises(InputError, match="no such file"):
        LatencyMap.load(tmp_path, tiny_scenario)
    (tmp_path / FILE).write_text(json.dumps({"curves": [{"stage": "retrieval", "component": "base"}]}))
    with pytest.raises(InputError, match=r"latency\.json: field 'lengths' is missing"):
        LatencyMap.load(tmp_path, tiny_scenario)
    (tmp_path / FILE).write_text(json.dumps({"curves": []}))
    with pytest.raises(InputError, match=r"latency\.json: .*'base' of stage 'retrieval'"):
        LatencyMap.load(tmp_path, tiny_scenario)
