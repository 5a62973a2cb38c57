"""The command `marca balance`: options, tables, figures, interruptions and errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.cli.main import main
from benchmarks.days.balancer_evaluation import BalancerEvaluation
from benchmarks.days.calibration import Calibration
from benchmarks.days.compare_balancers import check_log, check_model, read_sweep
from marca_env.logs.log_files import read_system_log
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from mpc import SystemModel
from tests.helpers.paths import SAMPLES

SAMPLE = SAMPLES / "system.csv"
TINY = ["--minutes", "12", "--requests", "40", "--days", "1", "--epochs", "2", "--tuning", "5"]


@pytest.fixture(scope="module")
def home(tiny_scenario: Scenario, tiny_artefacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a user's scenario."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_artefacts, folder, dirs_exist_ok=True)
    tiny_scenario.save(folder / "scenario.yaml")
    return folder


@pytest.mark.slow
def test_the_command_writes_tables_and_figures(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "first"
    arguments = ["balance", "--scenario", str(home), "--traffic", "flash-sale", "--seeds", "1", *TINY]
    chosen = ["--methods", "feedback", "mpc", "clairvoyant", "--sweep", "alpha=0.2,0.8", "--out", str(out)]
    assert main([*arguments, *chosen]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["methods"]) == ["feedback", "mpc", "clairvoyant"]
    assert [row["settings"] for row in summary["sweep"]] == [{"alpha": 0.2}, {"alpha": 0.8}]
    assert set(summary["model"]["steps"]["1"]) >= {"rmse", "persistence", "linear"}
    scores = pd.read_csv(out / "scores.csv")
    assert len(scores) == 3 + 2
    mine = scores[(scores["method"] == "feedback") & (scores["seed"] == 1)]
    assert mine["mu_all"].item() == pytest.approx(1.0, abs=1.0)
    assert mine["nu_all"].item() >= 0
    assert len(pd.read_csv(out / "minutes.csv")) == 3 * 12
    for name in ("balance.png", "feedback_mpc.png", "sweep.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("linear model", "of the dual bound"))
    (tmp_path / "gate.yaml").write_text("mu: 1.0\nprice_max: 0.0\nnu: 100.0")
    again = ["--model", str(out / "model"), "--methods", "mpc", "--out", str(tmp_path / "second")]
    assert main([*arguments, *again, "--require", str(tmp_path / "gate.yaml")]) == 1
    broken = [line for line in capsys.readouterr().err.splitlines() if "requirement broken" in line]
    assert any("mpc: mu.all" in line for line in broken)
    assert any("mpc: price_max" in line for line in broken)
    assert not any("nu.all" in line for line in broken)
    second = pd.read_csv(tmp_path / "second" / "scores.csv")
    assert (
        second["mu_all"].tolist()
        == scores[(scores["method"] == "mpc") & (scores["settings"] == "{}")]["mu_all"].tolist()
    )


@pytest.mark.slow
def test_an_interruption_keeps_the_finished_methods(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_method, finished = BalancerEvaluation.run, []

    def interrupted(self, name, settings=None, on_minute=None):
        if finished:
            raise KeyboardInterrupt
        finished.append(name)
        return run_method(self, name, settings, on_minute)

    monkeypatch.setattr(BalancerEvaluation, "run", interrupted)
    arguments = ["balance", "--scenario", str(home), *TINY, "--methods", "static", "bisection"]
    assert main([*arguments, "--out", str(tmp_path)]) == 130
    assert "Interrupted" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "scores.csv")["method"].tolist() == ["static"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--methods", "mcp"], "did you mean 'mpc'"),
        (["--traffic", "flash_sale"], "did you mean 'flash-sale'"),
        (["--sweep", "alpha"], "write NAME=VALUE"),
        (["--sweep", "alpa=0.2"], "did you mean 'alpha'"),
        (["--sweep", "alpha=0.2,7"], "alpha=7: alpha is 7"),
        (["--sweep", "alpha=0.2", "alpha=0.3"], "given twice"),
        (["--sweep", "peak_slots=11-13"], "write HH:MM-HH:MM"),
        (["--model", "a", "--log", "b"], "keep one of them"),
        (["--model", "nowhere"], "nowhere"),
        (["--log", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--trace", "nowhere.csv"], "nowhere.csv: no such trace file"),
        (["--minutes", "0"], "--minutes is 0"),
        (["--seeds", "-1"], "--seeds is -1; pass an integer from 0"),
        (["--seeds", "0", "0"], "has a seed twice"),
        (["--seeds", str(2**64)], "pass an integer from 0 to 2**64 - 1"),
        (["--hidden", "0"], "--hidden is 0"),
        (["--learning-rate", "7"], "--learning-rate is 7"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(["balance", "--scenario", str(home), *TINY, "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_a_log_of_other_clusters_is_reported_but_not_run(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, n = np.random.default_rng(0), 300
    columns = {"day": np.zeros(n), "minute": np.arange(n), "qps": rng.uniform(50, 90, n), "revenue": np.ones(n)}
    columns["price_only"] = rng.uniform(0.5, 3, n)
    columns["load_only"] = columns["qps"] / (1 + columns["price_only"])
    columns |= {"degradation_only": np.zeros(n), "backlog_only": np.zeros(n)}
    pd.DataFrame(columns).to_csv(tmp_path / "log.csv", index=False)
    arguments = ["balance", "--scenario", str(home), *TINY, "--log", str(tmp_path / "log.csv")]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 2
    assert "system model is of the clusters only" in capsys.readouterr().err
    assert main([*arguments, "--fit-only", "--out", str(tmp_path / "b")]) == 0
    assert json.loads((tmp_path / "b" / "summary.json").read_text())["methods"] == {}
    assert SystemModel.load(tmp_path / "b" / "model").clusters == ("only",)


def system_log(clusters: tuple[str, ...], load: float, qps: float, price: float = 2.0) -> pd.DataFrame:
    """Return a log of 300 minutes with loads, rates and prices about some values."""
    rng, n = np.random.default_rng(0), 300
    factors = [rng.uniform(0.8, 1.2, n) for _ in range(2)]
    columns = {"day": np.zeros(n), "minute": np.arange(n), "qps": qps * factors[0], "revenue": np.ones(n)}
    for name in clusters:
        columns |= {f"price_{name}": price * factors[1], f"load_{name}": load * factors[0] / factors[1]}
        columns |= {f"degradation_{name}": np.zeros(n), f"backlog_{name}": np.zeros(n)}
    return pd.DataFrame(columns)


@pytest.mark.parametrize(
    ("load", "qps", "expected"),
    [
        (90.0, 1.0, "the median load of cluster .* other units, or another system; use the --scenario that was made"),
        (1e-4, 1.0, "the median load of cluster"),
        (1.0, 100.0, "requests per second, and the peak of scenario"),
        (1.0, 0.001, "requests per second, and the peak of scenario"),
    ],
)
def test_a_log_in_other_units_is_refused_before_any_fit(
    tiny_scenario: Scenario, load: float, qps: float, expected: str
) -> None:
    budget = tiny_scenario.budgets[0]
    log = system_log(tiny_scenario.cluster_names, load * budget, qps * tiny_scenario.peak_qps)
    with pytest.raises(InputError, match=expected):
        check_log(log, tiny_scenario, "log.csv")
    check_log(system_log(tiny_scenario.cluster_names, 0.5 * budget, tiny_scenario.peak_qps), tiny_scenario, "log.csv")


@pytest.mark.parametrize(
    ("cost_factor", "price_factor", "expected"),
    [
        (1.0, 1.0, None),
        (1000.0, 1.0, "a request took .* core-seconds in the scenario"),
        (1.0, 1e6, "the prices of cluster"),
    ],
)
def test_a_system_model_in_other_units_is_refused(
    cost_factor: float, price_factor: float, expected: str | None
) -> None:
    calibration = Calibration(Engine.load("stages-3-v0"), requests=40)
    cost = calibration.pool.costs.mean(axis=(0, 1))
    names = calibration.scenario.cluster_names
    model = SystemModel(
        names,
        (calibration.usual_prices * price_factor).tolist(),
        (calibration.usual_prices * price_factor * 5).tolist(),
        {"price_mean": [0, 0], "price_std": [1, 1], "cost_mean": np.log(cost * cost_factor), "cost_std": [1, 1]},
    )
    if expected is None:
        check_model(model, calibration)
    else:
        with pytest.raises(InputError, match=expected):
            check_model(model, calibration)


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the published sample is not available")
def test_the_published_log_has_the_clusters_of_the_scenario(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = read_system_log(SAMPLE, ("retrieval", "pre_ranking"))
    assert {"load_retrieval", "load_pre_ranking"} <= set(log.columns)
    assert main(["balance", "--log", str(SAMPLE), "--out", str(tmp_path)]) == 2
    assert "other units, or another system" in capsys.readouterr().err


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the published sample is not available")
def test_the_published_log_needs_no_conversion(tmp_path: Path) -> None:
    assert main(["balance", "--log", str(SAMPLE), "--fit-only", "--epochs", "2", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "summary.json").read_text())["model"]
    assert report["transitions"]["held_out"] >= 1
    assert set(report["steps"]) == {"1"}  # its rows come in pairs


def test_sweeps_are_read() -> None:
    assert read_sweep(["alpha=0.2,0.4", "horizon=5"]) == {"alpha": [0.2, 0.4], "horizon": [5]}
    slots = read_sweep(["peak_slots=none,11:00-13:00+19:00-22:00"])
    assert slots == {"peak_slots": [(), ((660, 780), (1140, 1320))]}
    assert read_sweep(["damping=measured,none", "rate_limit=null"]) == {
        "damping": ["measured", "none"],
        "rate_limit": [None],
    }
