"""From a user's logs to an environment: the fit must recover the law behind the generated logs."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pandas as pd
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test

import marca_env
from benchmarks.cli.main import main
from marca_env.integration.feature_coding import FeatureCoder
from marca_env.integration.logged_system import read_logged_system
from marca_env.integration.mapping import Mapping
from marca_env.logs.log_files import read_request_log
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from tests.helpers.factories import make_cost_log
from tests.helpers.paths import ROOT, SAMPLES

EXAMPLE = ROOT / "examples" / "own_system"
published = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are not at hand")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that `marca fit` writes from the example's logs, as CSV, Parquet and CSV."""
    folder = tmp_path_factory.mktemp("shop")
    script = [sys.executable, str(EXAMPLE / "make_logs.py"), "--out", str(folder), "--rows", "8000"]
    subprocess.run(script, check=True, capture_output=True)
    logs = [
        "--requests",
        folder / "requests.csv",
        "--costs",
        folder / "costs.parquet",
        "--system",
        folder / "system.csv",
    ]
    mapping, out = EXAMPLE / "mapping.yaml", folder / "scenario"
    arguments = ["fit", "--mapping", str(mapping), *map(str, logs), "--out", str(out), "--members", "2"]
    with (folder / "printed.txt").open("w") as printed, contextlib.redirect_stdout(printed):
        assert main(arguments) == 0
    return out


def test_every_file_of_the_folder_is_named_in_the_output(shop: Path) -> None:
    (line,) = (text for text in (shop.parent / "printed.txt").read_text().splitlines() if "wrote a scenario" in text)
    assert set(line.split(": ")[1].split(", ")) == {p.name for p in shop.iterdir()}


@pytest.mark.slow
def test_the_folder_is_complete_and_the_report_matches_the_law(shop: Path) -> None:
    assert {p.name for p in shop.iterdir()} == {
        "scenario.yaml",
        "features.json",
        "cost_model",
        "revenue_model",
        "population.parquet",
        "requests.parquet",
        "report.json",
    }
    report = json.loads((shop / "report.json").read_text())
    assert report["cost_source"] == "requests"
    assert report["joint_actions"] == {"all": 36, "seen": 36}
    assert report["options_never_seen"] == {}
    assert report["rows"] == {"requests": 8000, "costs": 2000, "system": 1440}
    for name in ("recall", "rank"):
        assert report["load"][name]["ratio_to_system_log"] == pytest.approx(1.0, abs=0.05)
        assert report["cost"][name]["calibration"] == pytest.approx(1.0, abs=0.05)
        assert report["cost"][name]["error"] < 0.12  # the logs scatter by 8 %
    assert report["revenue"]["calibration"] == pytest.approx(1.0, abs=0.15)


def test_the_cost_map_matches_the_law(shop: Path) -> None:
    """Recall = 1.5 + full · (2 + depth / 100); rank = 0.8 + (0.02 | 0.09) · ranked; milliseconds."""
    actions = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 2, 0, 0], [0, 0, 2, 0], [0, 0, 2, 1], [1, 2, 2, 1]])
    results = np.array([[60, 20], [140, 20], [380, 20], [60, 60], [60, 60], [380, 100]])
    cost = 1e3 * CostModel.load(shop / "cost_model").cost_map.cost(actions, results)
    np.testing.assert_allclose(cost[:, 0], [1.5, 4.5, 7.5, 1.5, 1.5, 7.5], rtol=0.03)
    np.testing.assert_allclose(cost[:, 1], [1.2, 1.2, 1.2, 2.0, 6.2, 9.8], rtol=0.06)


def test_budgets_and_peak_come_from_the_system_log(shop: Path) -> None:
    log = pd.read_csv(shop.parent / "system.csv")
    scenario = Scenario.load(shop)
    assert scenario.peak_qps == log["requests_per_second"].max()
    load = log["recall_cpu_percent"] * 0.32
    assert scenario.clusters[0].budget == pytest.approx(np.quantile(load, 0.95))
    assert scenario.clusters[1].cores == 64
    assert scenario.channels == ("terms", "vectors")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_environment_runs_on_the_folder(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api_test(marca_env.env(scenario=shop), num_cycles=20)
    parallel_api_test(marca_env.parallel_env(scenario=str(shop)), num_cycles=20)
    for name in ("marca_env/Recommender-v0", "marca_env/Balancing-v0"):
        check_env(gymnasium.make(name, scenario=shop).unwrapped, skip_render_check=True)
    batch = marca_env.batched_env(64, scenario=shop)
    batch.reset(seed=0)
    for _ in range(batch.max_steps):
        waits = {agent: np.full(64, n - 1) for agent, n in batch.action_sizes.items()}
        step = batch.step({**waits, batch.agent_on_turn: np.zeros(64, dtype=int)})
    assert (step.infos["cost"] > 0).all()
    assert (step.reward > 0).all()


def test_headroom_takes_the_fitted_models_as_the_truth(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["headroom", "--scenario", str(shop), "--requests", "200", "--budgets", "0.5"]
    assert main(arguments) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Scenario 'shop_search' has no live cascade: its fitted models serve as the truth." in out
    assert main([*arguments, "--costs", str(shop.parent / "costs.parquet")]) == 2
    assert "has no live cascade" in capsys.readouterr().err


def test_a_day_is_simulated_with_the_fitted_models_as_the_truth(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["simulate", "--scenario", str(shop), "--policies", "static", "dcaf", "--minutes", "60"]
    assert main([*arguments, "--seeds", "0", "--requests", "50", "--out", str(tmp_path)]) == 0
    assert "its fitted models serve as the truth" in " ".join(capsys.readouterr().out.split())
    policies = json.loads((tmp_path / "summary.json").read_text())["policies"]
    assert policies["dcaf"]["revenue"] > 0


def test_the_folder_may_be_moved(shop: Path, tmp_path: Path) -> None:
    moved = shop.rename(shop.with_name("moved"))
    try:
        engine = Engine.load(moved)
        assert engine.scenario.home == moved
        assert Engine.load(moved / "scenario.yaml").scenario == engine.scenario
    finally:
        moved.rename(shop)


def test_a_new_fit_replaces_the_cached_engine(shop: Path) -> None:
    first = marca_env.parallel_env(scenario=shop)._core.engine
    assert marca_env.parallel_env(scenario=shop)._core.engine is first
    (shop / "revenue_model" / "model.json").touch()
    assert marca_env.parallel_env(scenario=shop)._core.engine is not first


def test_unseen_feature_values_have_a_state(shop: Path) -> None:
    coder, engine = FeatureCoder.load(shop), Engine.load(shop)
    raw = {"customer_value": 1e9, "city": "Atlantis", "device": "fridge", "time": "2031-12-31T23:59"}
    state = coder.encode(raw)
    value, cost = engine.table(state)
    assert np.all(np.isfinite(value))
    assert (cost > 0).all()
    assert state[0].tolist()[2:] == [3, 3]


def test_the_request_log_is_written_in_our_schema(shop: Path) -> None:
    log = read_request_log(shop / "requests.parquet", Scenario.load(shop))
    raw = pd.read_csv(shop.parent / "requests.csv")
    np.testing.assert_allclose(log["revenue"], raw["revenue_eur"])
    assert (log["sources"] == (raw["sources"] == "full")).all()
    assert log["result_rank"].mean() == pytest.approx(50.0, abs=5.0)


@pytest.mark.slow
@published
def test_the_published_samples_make_a_scenario(tmp_path: Path) -> None:
    logs = [f"--{name}={SAMPLES / file}.csv" for name, file in (("requests",) * 2, ("costs",) * 2, ("system",) * 2)]
    assert main(["fit", *logs, "--out", str(tmp_path), "--members", "1"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["held_out"] == {"requests": 0, "costs": 0}
    assert report["cost_source"] == "system"
    for name in ("retrieval", "pre_ranking"):
        assert report["load"][name]["ratio_to_system_log"] == pytest.approx(1.0, abs=0.1)
    env = marca_env.parallel_env(scenario=tmp_path)
    env.reset(seed=0)
    while env.agents:
        _, _, _, _, infos = env.step(dict.fromkeys(env.agents, 0))
    assert all(cost > 0 for cost in infos["retrieval"]["cost"].values())


def test_costs_can_come_from_the_system_log_alone(shop: Path, tmp_path: Path) -> None:
    """Without measured costs of requests the mean is the system log's, and costs grow with the candidates."""
    text = (EXAMPLE / "mapping.yaml").read_text().replace("source: requests", "fixed_share: 0.5\n  source: system")
    (tmp_path / "m.yaml").write_text(text)
    folder = shop.parent
    system = read_logged_system(
        Mapping.load(tmp_path / "m.yaml"), folder / "requests.csv", folder / "costs.parquet", folder / "system.csv"
    )
    cost_map, mean = system.cost_map(), system.system.cost  # type: ignore[union-attr]
    results = system.results[["result_recall", "result_rank"]].to_numpy(float)
    actions = system.results[list(system.scenario.decision_names)].to_numpy()
    cost = cost_map.cost(actions, results)
    np.testing.assert_allclose(cost.mean(axis=0), mean, rtol=0.03)
    few, many = (cost[results[:, 1] == n, 1].mean() for n in (20, 100))
    assert many - few == pytest.approx(0.5 * mean[1] * 80 / results[:, 1].mean(), rel=0.1)


def test_a_testbench_log_is_recognised(tiny_scenario: Scenario, tiny_requests: pd.DataFrame, tmp_path: Path) -> None:
    tiny_requests.to_csv(tmp_path / "r.csv", index=False)
    make_cost_log(tiny_scenario).to_csv(tmp_path / "c.csv", index=False)
    plain = tiny_scenario.to_dict()
    for stage in plain["stages"]:
        stage["result"] = f"result_{stage['name']}"
        for decision in stage["decisions"]:
            decision["values"] = "index"
    features = [{**f, "coding": "time" if f["name"] == "w" else "code"} for f in plain["features"]]
    tiny_requests.assign(w=tiny_requests["w"] * 360).to_csv(tmp_path / "r.csv", index=False)
    mapping = {k: plain[k] for k in ("name", "stages", "clusters", "peak_qps")} | {"features": features}
    (tmp_path / "m.yaml").write_text(json.dumps(mapping))
    system = read_logged_system(Mapping.load(tmp_path / "m.yaml"), tmp_path / "r.csv", tmp_path / "c.csv")
    assert system.source == "buckets"
    assert system.scenario.stages == tiny_scenario.stages
    assert (system.requests["w"] == tiny_requests["w"]).all()
    assert float(system.cost_map().curves["ranking", "queue"](np.array(20.0))) == pytest.approx(0.012)


def test_a_learner_trains_on_the_folder_and_its_policy_decides(shop: Path, tmp_path: Path) -> None:
    """`marca train --scenario PATH`, then decisions without the folder: the policy stores its cost model."""
    pytest.importorskip("ray")
    from agents.policy.allocation_policy import AllocationPolicy

    small = ["gru=8", "hidden=[8]", "heads=2", "num_envs_per_env_runner=256", "train_batch_size_per_learner=64"]
    command = ["train", "--algo", "QMIX", "--scenario", str(shop), "--stop", "training_iteration=6"]
    assert main([*command, "--config", *small[:2], *small[3:], "--out", str(tmp_path)]) == 0
    policy = AllocationPolicy.load(tmp_path)
    assert policy.cost_model.scenario == Scenario.load(shop)
    coder = FeatureCoder.load(shop)
    states = coder.encode({"customer_value": 20, "city": "city-1", "device": "phone", "time": 720})
    assert policy.decide(states, np.array([1.0, 1.0])).shape == (1, 4)
