"""New versions of the policy: loaded while the server answers, refused if they are damaged or of another system."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.serving.app import AppLimits, create_app
from benchmarks.serving.decider import Decider
from benchmarks.serving.policy_watch import PolicyWatch, load_decider, policy_version
from benchmarks.serving.service import DecisionService
from marca_env.integration.feature_coding import FeatureCoder, FeatureCoding
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.decision_server import GOOD, PRICES, STATIC, call, decide, running, service_of
from tests.helpers.policies import save_team_policy, save_untrained_policy


def watched(link: Path) -> tuple[DecisionService, PolicyWatch]:
    """Return a service of the policy that a link points to, and its watch."""
    service = service_of(AllocationPolicy.load(link), version=policy_version(link), seconds=10.0)
    return service, PolicyWatch(link, lambda rule: load_decider(link, static=rule), service)


def point(link: Path, folder: Path) -> None:
    """Let a link point to another folder, in one step."""
    new = link.with_name(f"{link.name}.new")
    new.symlink_to(folder)
    os.replace(new, link)


def test_a_new_version_is_loaded_without_a_dropped_request(policy_folder, tmp_path):
    link, other = tmp_path / "live", tmp_path / "v2"
    save_untrained_policy(other)
    point(link, policy_folder)
    service, watch = watched(link)
    stop, answers = threading.Event(), []

    with running(create_app(service, limits=AppLimits(sync_seconds=0.02), background=[watch])) as url:

        def ask() -> None:
            while not stop.is_set():
                answers.append(decide(url, GOOD))

        client = threading.Thread(target=ask)
        client.start()
        while not answers:
            pass
        point(link, other)
        new = policy_version(other)
        for _ in range(2_000):
            if call(f"{url}/readyz")[1]["policy_version"] == new:
                break
        last = decide(url, GOOD)
        stop.set()
        client.join()
    assert {a["policy_version"] for a in answers} <= {policy_version(policy_folder), new}
    assert {a["decisions"][0]["status"] for a in answers} == {"ok"}
    assert last["policy_version"] == new
    expected = AllocationPolicy.load(other).decide(np.array([list(GOOD.values())]), PRICES)
    assert last["decisions"][0]["action"] == expected[0].tolist()
    assert service.decider.static_rule == STATIC
    assert service.decider.policy.remembered_share > 0  # the states of the last requests were computed before


def test_a_damaged_version_is_refused_once_and_the_old_one_goes_on(policy_folder, tmp_path, caplog):
    link, bad = tmp_path / "live", tmp_path / "bad"
    shutil.copytree(policy_folder, bad)
    (bad / "policy.json").write_text("{}")
    point(link, policy_folder)
    service, watch = watched(link)
    old = service.decider
    point(link, bad)
    watch()
    watch()
    assert service.decider is old
    (record,) = [r for r in caplog.records if "refused" in r.message]
    assert "goes on" in record.message
    assert service.metrics.registry.get_sample_value("marca_policy_swaps_total", {"result": "refused"}) == 1
    shutil.rmtree(bad)
    watch()  # the folder is being replaced
    point(link, policy_folder)
    watch()
    assert service.decider is old


def test_a_policy_of_another_system_is_refused(policy):
    service = service_of(policy)
    decider = service.decider
    with pytest.raises(InputError, match="features differ from those served"):
        service.swap(Decider(policy, Scenario.load("llm-cascade-v0"), STATIC), "v2")
    assert service.decider is decider


def test_raw_features_are_coded_by_the_file_of_the_policy_folder(policy, tmp_path):
    save_team_policy(tmp_path, policy.scenario, policy.cost_model)
    codings = [FeatureCoding(f.name, f.size, f"raw_{f.name}") for f in policy.scenario.features]
    FeatureCoder(codings).save(tmp_path / "features.json")
    decider, version = load_decider(tmp_path, static="0,0,0,0,0")
    raw = {f"raw_{f.name}": "text" for f in policy.scenario.features}
    decision = decider.decide([raw], PRICES)[0]
    assert (decision.status, version) == ("ok", policy_version(tmp_path))
    assert decision.state == tuple(FeatureCoder(codings).encode(raw)[0])
    with pytest.raises(InputError, match="no such file"):
        load_decider(tmp_path, features=tmp_path / "none.json")
    with pytest.raises(InputError, match=r"no policy\.json"):
        load_decider(tmp_path / "nothing")
