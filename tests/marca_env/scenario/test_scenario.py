"""Scenarios: validation, YAML, joint actions and degradation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marca_env.scenario.scenario import Catalogue, Decision, Protection, Scenario, ScenarioError
from marca_env.utils.errors import InputError


def test_default_preset_has_the_published_shape() -> None:
    scenario = Scenario.load("default")
    assert scenario.action_shape == (4, 5, 5, 2, 5)
    assert scenario.n_joint_actions == 1000
    assert [s.name for s in scenario.agents] == ["retrieval", "pre_ranking"]
    assert scenario.cluster_names == ("retrieval", "ranking")
    assert scenario.stage_clusters.tolist() == [[0, 1, 1]]


def test_a_saved_scenario_is_loaded_unchanged(tmp_path: Path, tiny_scenario: Scenario) -> None:
    tiny_scenario.save(tmp_path / "s.yaml")
    assert Scenario.load(tmp_path / "s.yaml") == tiny_scenario


def test_joint_index_inverts_joint_actions(tiny_scenario: Scenario) -> None:
    joint = tiny_scenario.joint_actions
    assert joint.shape == (36, 4)
    assert np.array_equal(tiny_scenario.joint_index(joint), np.arange(36))


def test_degradation_caps_only_the_decisions_of_its_cluster(tiny_scenario: Scenario) -> None:
    joint = tiny_scenario.joint_actions
    dearest = len(joint) - 1
    ran = joint[tiny_scenario.degraded(0, 2)[dearest]]  # level 2: half of each range, rounded down
    assert ran.tolist() == [0, 1, 0, 2]
    ran = joint[tiny_scenario.degraded(1, 3)[dearest]]
    assert ran.tolist() == [1, 2, 1, 0]
    assert np.array_equal(tiny_scenario.degraded(0, 0), np.arange(len(joint)))


def change(data: dict, path: str, value: object) -> dict:
    *parents, last = path.split(".")
    node: Any = data
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    if isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("peak_qsp", 1, "did you mean 'peak_qps'"),
        ("stages.0.clustr", "x", "did you mean 'cluster'"),
        ("stages", [], "no stages"),
        ("stages.0.cluster", "rankin", "did you mean 'ranking'"),
        ("stages.0.decisions.0.kind", "chanel", "did you mean 'channel'"),
        ("stages.0.decisions.0.options.0", ["towers"], "unknown channel"),
        ("stages.0.decisions.1.options", [50, 50], "repeat"),
        ("stages.0.decisions.1.options", [50, 20], "must rise"),
        ("stages.0.decisions.1.options", [0, 20], "positive whole number"),
        ("stages.0.decisions.1.options", [], "no options"),
        ("stages.0.queue_limit", 0, "queue_limit"),
        ("clusters.0.budget", 99.0, "exceeds"),
        ("clusters.0.budget", -1.0, "must be positive"),
        ("clusters.0.budget", "much", "expected a finite number"),
        ("clusters.0.budget", float("nan"), "expected a finite number"),
        ("features.0.size", 0, "at least one category"),
        ("features.0.size", 2.5, "whole number"),
        ("features.0.seen_by", ["rank"], "did you mean 'ranking'"),
        ("catalogue.noise.ranking", -1, "must not be negative"),
        ("catalogue.noise.rankin", 1.0, "did you mean 'ranking'"),
        ("stages.0.decisions.3.options.0", False, "quote 'off'"),
        ("stages.0.decisions.3.channel", "two_tower", "channel belongs to a queue"),
        ("stages.0.cluster", "ranking", "cluster 'retrieval' runs no stage"),
        ("audience.bid", -0.1, "audience.bid is -0.1; it must not be negative"),
        ("display.decay", 0, "must lie in"),
        ("protection.levels", [0.5, 0.7], "must fall"),
        ("peak_qps", 0, "must be positive"),
        ("control_period", 0, "at least 1"),
        ("name", 3, "expected text"),
    ],
)
def test_bad_fields_are_named(path: str, value: object, expected: str) -> None:
    data = change(Scenario.load("default").to_dict(), path, value)
    with pytest.raises(ScenarioError, match=expected):
        Scenario.from_dict(data)


def test_files_that_are_no_scenario_are_refused(tmp_path: Path) -> None:
    data = Scenario.load("default").to_dict()
    del data["peak_qps"]
    with pytest.raises(ScenarioError, match="'peak_qps' is missing"):
        Scenario.from_dict(data)
    with pytest.raises(ScenarioError, match="did you mean 'default'"):
        Scenario.load("defalt")
    with pytest.raises(ScenarioError, match="no such scenario file"):
        Scenario.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("name: [")
    with pytest.raises(ScenarioError, match=r"bad\.yaml: not valid YAML"):
        Scenario.load(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("name: [1,\nb: :")
    with pytest.raises(ScenarioError) as bad:
        Scenario.load(tmp_path / "bad.yaml")
    assert "\n" not in str(bad.value)
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="not a text file in UTF-8"):
        Scenario.load(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ScenarioError, match="expected a mapping"):
        Scenario.load(tmp_path / "list.yaml")


def test_protection_and_decision_check_themselves() -> None:
    with pytest.raises(ScenarioError, match="release"):
        Protection(release=2.0, trigger=1.0)
    with pytest.raises(ScenarioError, match="must be a list of channels"):
        Decision("c", "channel", ("popularity",))


def test_models_missing_from_the_noise_get_the_default() -> None:
    data = change(Scenario.load("default").to_dict(), "catalogue.noise", {"ranking": 0.1})
    assert Scenario.from_dict(data).catalogue.noise == {**Catalogue().noise, "ranking": 0.1}


def test_options_are_named() -> None:
    scenario = Scenario.load("default")
    first, last = scenario.named_options(np.array([[0] * 5, np.array(scenario.action_shape) - 1]))
    assert list(first) == list(scenario.decision_names)
    assert first["truncation"] == scenario.decisions[-1].options[0]
    assert last["truncation"] == scenario.decisions[-1].options[-1]
    with pytest.raises(InputError, match="it must lie in"):
        scenario.named_options(np.full((1, 5), 99))


def test_noise_must_be_a_mapping() -> None:
    data = Scenario.load("default").to_dict()
    data["catalogue"]["noise"] = [1, 2]
    with pytest.raises(ScenarioError, match=r"scenario\.catalogue\.noise: expected a mapping, got \[1, 2\]"):
        Scenario.from_dict(data)
