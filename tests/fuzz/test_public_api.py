"""Every public function with every wrong value for every argument: it works, or one short line says what is wrong."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import agents
import marca_env
import mpc
from tests.fuzz import public_api
from tests.fuzz.public_api import Call, fault
from tests.helpers.policies import save_untrained_policy

UNTESTED = {
    *("STAGES", "ENVIRONMENTS", "__version__", "InputError", "PRESETS", "PresetError"),  # values and errors
    *("Balancer", "ViewOptions"),  # a protocol; a part of what parallel_env takes
    *("Team", "TeamSpec", "Preset", "AllocationPolicy"),  # made by their own loaders, which are called
    *("MPCBalancer", "AdaptiveBalancer", "TrafficForecaster", "SystemModel"),  # the same
}
"""Public names that are not called themselves."""


def check(calls: list[Call]) -> None:
    """Make every call with every wrong value."""
    cases = [(name, call.function, arguments) for call in calls for name, arguments in call.cases()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        faults = [found for case in cases if (found := fault(*case)) is not None]
    assert not faults, f"{len(faults)} of {len(cases)} calls:\n" + "\n".join(faults[:30])


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some values are paths, which the calls may write."""
    monkeypatch.chdir(tmp_path)


def test_environments() -> None:
    check(public_api.environment_calls())


def test_scenarios_models_and_logs(tmp_path: Path) -> None:
    check(public_api.model_calls(tmp_path))


def test_policies_and_presets(tmp_path: Path) -> None:
    save_untrained_policy(tmp_path / "policy")
    policy = agents.AllocationPolicy.load(tmp_path / "policy")
    check(public_api.agent_calls(policy, tmp_path))


def test_controllers(tmp_path: Path) -> None:
    check(public_api.control_calls(tmp_path))


def test_every_public_name_is_called(tmp_path: Path) -> None:
    save_untrained_policy(tmp_path / "policy")
    policy = agents.AllocationPolicy.load(tmp_path / "policy")
    calls = [*public_api.environment_calls(), *public_api.model_calls(tmp_path), *public_api.control_calls(tmp_path)]
    calls += public_api.agent_calls(policy, tmp_path)
    called = {call.name.partition(".")[0].partition("(")[0] for call in calls}
    names = {*marca_env.__all__, *agents.__all__, *mpc.__all__}
    assert names - called - UNTESTED == set()
