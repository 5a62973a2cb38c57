"""Tests of the cost log that the true costs of a scenario come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.days.artefacts import has_live_cascade, load_cost_map, truth_note
from marca_env.logs.log_files import write_cost_log
from marca_env.models.cost_map import CostMap
from marca_env.models.engine import shipped_folder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.factories import make_cost_log


@pytest.fixture
def home(tmp_path: Path, tiny_scenario: Scenario) -> Scenario:
    """Return a scenario of the live cascade that was read from its own folder."""
    tiny_scenario.save(tmp_path / "scenario.yaml")
    return Scenario.load(tmp_path)


def test_the_cost_log_in_the_scenarios_folder_is_used(home: Scenario, tmp_path: Path) -> None:
    log = make_cost_log(home)
    write_cost_log(log, tmp_path / "cost_log.csv")
    results = np.full((len(home.joint_actions), 3), 20.0)
    expected = CostMap.from_log(home, log).cost(home.joint_actions, results)
    np.testing.assert_allclose(load_cost_map(home).cost(home.joint_actions, results), expected)


def test_a_missing_cost_log_raises_with_the_command_that_measures_it(home: Scenario, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no cost log {tmp_path}/cost_log.csv; measure one with `marca testbench"):
        load_cost_map(home)


def test_the_default_scenario_uses_the_shipped_cost_log() -> None:
    scenario = Scenario.load("default")
    actions, results = scenario.joint_actions, np.full((scenario.n_joint_actions, 3), 100.0)
    shipped = load_cost_map(scenario, shipped_folder("default") / "cost_log.csv")
    np.testing.assert_array_equal(load_cost_map(scenario).cost(actions, results), shipped.cost(actions, results))


def test_a_folder_with_coded_features_has_no_live_cascade(home: Scenario, tmp_path: Path) -> None:
    assert has_live_cascade(home)
    assert truth_note(home) is None
    (tmp_path / "features.json").write_text("{}")
    assert not has_live_cascade(home)  # a user's own system, though its stages have the names of the cascade's
    assert "fitted models" in str(truth_note(home))


def test_generated_scenarios_need_no_note() -> None:
    assert truth_note(Scenario.load("stages-4-v0")) is None
