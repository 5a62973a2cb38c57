"""Tests of the default value functions: which models they learn from, and where they are stored."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training import default_learner
from benchmarks.training.default_learner import default_checkpoint
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

Trainings = list[tuple[Path, dict[str, Any]]]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainings:
    """Return the output folder and the environment's options of each training, none of which really runs."""
    import agents.rllib

    started: Trainings = []

    def online_train(out: Path, *, env_config: dict[str, Any], iterations: int, **_options: Any) -> Path:
        started.append((out, env_config))
        policy = out / f"checkpoint_{iterations:06d}" / "policy"
        policy.mkdir(parents=True)
        (policy / "policy.json").write_text("{}")
        return policy

    monkeypatch.setattr(agents.rllib, "online_train", online_train)
    monkeypatch.setattr(default_learner, "POLICIES", tmp_path / "policies")
    return started


def test_a_preset_is_stored_under_its_name(trainings: Trainings, tmp_path: Path) -> None:
    first = default_checkpoint("VDN", Scenario.load("default"), 3)
    assert default_checkpoint("VDN", Scenario.load("default"), 3) == first
    assert trainings == [(tmp_path / "policies" / "default-VDN-3", {"scenario": "default"})]


def test_a_fitted_folder_trains_on_its_own_models(
    trainings: Trainings, tmp_path: Path, tiny_scenario: Scenario, tiny_artefacts: Path
) -> None:
    home = tmp_path / "mine"
    shutil.copytree(tiny_artefacts, home)
    tiny_scenario.replace(name="default").save(home / "scenario.yaml")
    default_checkpoint("VDN", Scenario.load(home), 3)
    [(out, env_config)] = trainings
    assert env_config == {"scenario": str(home)}
    assert out.name != "default-VDN-3"  # the policy of the preset with this name is another one
    default_checkpoint("VDN", Scenario.load(shutil.move(home, tmp_path / "moved")), 3)
    assert len(trainings) == 1


def test_another_fit_of_the_same_folder_trains_again(
    trainings: Trainings, tmp_path: Path, tiny_scenario: Scenario, tiny_artefacts: Path
) -> None:
    home = tmp_path / "mine"
    shutil.copytree(tiny_artefacts, home)
    tiny_scenario.save(home / "scenario.yaml")
    default_checkpoint("VDN", Scenario.load(home), 3)
    weights = home / "revenue_model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    default_checkpoint("VDN", Scenario.load(home), 3)
    assert len(trainings) == 2


def test_a_scenario_that_was_renamed_keeps_its_policies(
    trainings: Trainings, tmp_path: Path, tiny_scenario: Scenario, tiny_artefacts: Path
) -> None:
    home = tmp_path / "mine"
    shutil.copytree(tiny_artefacts, home)
    for name in ("before", "after"):
        tiny_scenario.replace(name=name).save(home / "scenario.yaml")
        default_checkpoint("VDN", Scenario.load(home), 3)
    assert len(trainings) == 1


def test_a_scenario_of_ones_own_file_is_found_by_the_training(trainings: Trainings, tmp_path: Path) -> None:
    """Its name is no preset: `marca simulate --scenario mine.yaml` used to look for a preset of this name."""
    mine = Scenario.load("default").replace(name="mine", peak_qps=1500.0)
    mine.save(tmp_path / "mine.yaml")
    default_checkpoint("VDN", Scenario.load(tmp_path / "mine.yaml"), 3)
    default_checkpoint("VDN", mine.replace(peak_qps=1400.0), 3)  # made in Python
    for (_, env_config), peak in zip(trainings, (1500.0, 1400.0), strict=True):
        assert Scenario.load(env_config["scenario"]).peak_qps == peak


def test_tasks_of_windows_and_fleets_learn_from_single_requests(trainings: Trainings, tmp_path: Path) -> None:
    for name in ("congestion-v0", "fleet-v0"):
        default_checkpoint("VDN", Scenario.load(name), 3)
        read = Scenario.load(trainings[-1][1]["scenario"])
        assert read.window is None
        assert read.agent_kind == "stage"
        assert not read.differs_from(Scenario.load(name))
    Scenario.load("fleet-v0").save(tmp_path / "mine.yaml")
    with pytest.raises(InputError, match="learn from single requests"):
        default_checkpoint("VDN", Scenario.load(tmp_path / "mine.yaml"), 3)
