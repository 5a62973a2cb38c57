"""``marca fit`` and ``marca testbench`` on the live cascade: files, report and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.cli.main import main
from marca_env.logs.log_files import read_request_log, write_cost_log, write_request_log
from marca_env.models.cost_map import CostMap
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from tests.helpers.factories import make_cost_log, make_requests


@pytest.mark.slow
def test_fit_writes_every_file_that_an_engine_loads(
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


def test_a_bad_log_is_a_one_line_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.csv").write_text("stage,cost\nretrieval,1\n")
    assert main(["fit", "--costs", str(tmp_path / "c.csv"), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("marca: error: ")
    assert "column 'cluster' is missing" in message
    assert message.count("\n") == 1


def test_testbench_refuses_to_overwrite_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_bad_options_of_fit_are_refused_before_anything_is_measured(
    option: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--out", str(tmp_path / "out"), *option]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
