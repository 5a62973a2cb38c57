from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.cli.main import main
from benchmarks.evaluation import model_errors
from marca_env.cascade.outcomes import OutcomeTable
from marca_env.logs.log_files import read_request_log, write_cost_log, write_request_log
from marca_env.models.cost_map import CostMap
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from tests.helpers.factories import ExactLaw, make_cost_log, make_requests


class CostLaw(ExactLaw):
    """The law as a cost model."""

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return self.cost(actions, self.results(states, actions))

    def table(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        joint = self.scenario.joint_actions
        pairs = np.repeat(states, len(joint), axis=0), np.tile(joint, (len(states), 1))
        results = self.results(*pairs)
        cost = self.cost(pairs[1], results)
        return results.reshape(len(states), len(joint), -1), cost.reshape(len(states), len(joint), -1)


class RevenueLaw(ExactLaw):
    """The law as a revenue model."""

    def table(self, states: np.ndarray) -> np.ndarray:
        joint = self.scenario.joint_actions
        pairs = np.repeat(states, len(joint), axis=0), np.tile(joint, (len(states), 1))
        return self.predict(*pairs).reshape(len(states), -1)


def test_without_noise_the_map_is_as_good_as_a_repeat(tiny_scenario: Scenario) -> None:
    log = make_cost_log(tiny_scenario)
    twice = pd.concat([log, log.assign(repeat=1)], ignore_index=True)
    errors = model_errors.cost_map_errors(tiny_scenario, twice)
    assert errors["error"] < 1e-9
    assert errors["spread"] < 1e-9
    assert np.isnan(model_errors.cost_map_errors(tiny_scenario, log)["ratio"])


def test_noise_shows_in_the_spread_and_the_map_smooths_it(tiny_scenario: Scenario) -> None:
    log, rng = make_cost_log(tiny_scenario), np.random.default_rng(0)
    noisy = pd.concat(
        [log.assign(repeat=r, cost=log["cost"] * np.exp(0.1 * rng.standard_normal(len(log)))) for r in range(4)],
        ignore_index=True,
    )
    errors = model_errors.cost_map_errors(tiny_scenario, noisy)
    assert 0.05 < errors["spread"] < 0.15
    assert 0.7 < errors["ratio"] < 1.3


def test_a_perfect_model_makes_no_error(tiny_scenario: Scenario) -> None:
    log, law = make_requests(tiny_scenario, 4000), CostLaw(tiny_scenario)
    for errors in model_errors.result_errors(law, log).values():  # type: ignore[arg-type]
        assert errors["mae"] == 0.0
        assert errors["r2"] == 1.0
    assert max(model_errors.cost_errors(law, log).values()) < 1e-6  # type: ignore[arg-type]
    revenue = model_errors.revenue_errors(RevenueLaw(tiny_scenario), log)  # type: ignore[arg-type]
    assert revenue["calibration"] == pytest.approx(1.0, abs=0.1)
    assert 0.1 < revenue["spearman"] < 1.0
    mean = law.table(log[list(tiny_scenario.feature_names)].to_numpy()[:500])[1].mean(axis=(0, 1))
    rows = pd.DataFrame({"component": "request", "cluster": tiny_scenario.cluster_names, "cost": mean * [1.0, 2.0]})
    whole = model_errors.whole_request_errors(law, log, rows)  # type: ignore[arg-type]
    assert whole["retrieval"] == pytest.approx(0.0, abs=1e-6)
    assert whole["ranking"] == pytest.approx(-0.5, abs=1e-6)


def test_the_truth_agrees_with_itself_and_with_noise_less(tiny_scenario: Scenario) -> None:
    law, rng = RevenueLaw(tiny_scenario), np.random.default_rng(1)
    states = rng.integers(0, tiny_scenario.feature_sizes, (300, 4))
    exact = law.table(states)
    nothing = np.zeros((300, 36, 3))
    same = model_errors.truth_errors(law, OutcomeTable(tiny_scenario, states, nothing, {"revenue": exact}))  # type: ignore[arg-type]
    assert same == pytest.approx({"spearman": 1.0, "by_group": 1.0, "by_action": 1.0, "calibration": 1.0})
    hidden = exact * rng.lognormal(-0.5, 1.0, (300, 1))  # what no one observes of a user, mean 1
    noisy = model_errors.truth_errors(law, OutcomeTable(tiny_scenario, states, nothing, {"revenue": hidden}))  # type: ignore[arg-type]
    assert noisy["spearman"] < 0.9 < noisy["by_group"]


def test_fit_leaves_all_that_an_engine_loads(
    tiny_scenario: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario, costs = tmp_path / "tiny.yaml", make_cost_log(tiny_scenario)
    tiny_scenario.save(scenario)
    write_request_log(make_requests(tiny_scenario, 3000), tmp_path / "r.csv", tiny_scenario)
    write_cost_log(pd.concat([costs, costs.assign(repeat=1)]), tmp_path / "c.csv")
    logs = ["--requests", str(tmp_path / "r.csv"), "--costs", str(tmp_path / "c.csv")]
    out = tmp_path / "out"
    assert main(["fit", "--scenario", str(scenario), *logs, "--out", str(out), "--members", "2"]) == 0
    engine = Engine.load(tiny_scenario, out)
    assert len(engine.population.states) == 48
    assert (engine.table(engine.population.states[:2])[1] > 0).all()
    assert isinstance(engine.cost_model.cost_map, CostMap)
    report = json.loads((out / "report.json").read_text())
    assert 400 < report["held_out_requests"] < 800
    assert report["results"]["ranking"]["r2"] > 0.9
    assert "test–retest" in capsys.readouterr().out
    assert len(read_request_log(out / "requests.parquet", tiny_scenario)) == 3000


def test_a_bad_log_ends_the_command_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.csv").write_text("stage,cost\nretrieval,1\n")
    assert main(["fit", "--costs", str(tmp_path / "c.csv"), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("marca: error: ")
    assert "column 'cluster' is missing" in message
    assert message.count("\n") == 1


def test_a_log_is_not_overwritten_by_accident(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.csv").write_text("kept")
    assert main(["testbench", "--out", str(tmp_path / "c.csv")]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (tmp_path / "c.csv").read_text() == "kept"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--rows", "0"], "--rows is 0"),
        (["--members", "0"], "--members is 0"),
        (["--device", "gpu"], "device 'gpu'"),
        (["--requests", "nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_bad_options_of_fit_are_told_before_anything_is_measured(
    option: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--out", str(tmp_path / "out"), *option]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
