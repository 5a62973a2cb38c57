"""Balancers side by side: the days, the clairvoyant, the scores, the command, the experiment."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.cli.main import main
from benchmarks.days.balancer_evaluation import BalancerEvaluation, score
from benchmarks.days.balancers import METHODS
from benchmarks.days.calibration import Calibration
from benchmarks.days.compare_balancers import read_sweep
from marca_env.models.engine import Engine
from marca_env.traffic.days import GENERATED, DayScenario, generated
from marca_env.traffic.simulated_system import SystemChanges
from marca_env.traffic.workload import Traffic
from mpc import FeedbackBalancer, SystemModel
from tests.helpers.paths import SAMPLES

SAMPLE = SAMPLES / "system.csv"


@pytest.fixture(scope="module")
def known(exact_engine: Engine) -> Calibration:
    return Calibration(exact_engine, requests=40, days=1, epochs=3, tuning=5)


@pytest.fixture(scope="module")
def judge(known: Calibration) -> BalancerEvaluation:
    rates = np.concatenate([np.full(15, 5.0), np.linspace(10.0, 90.0, 25)])
    course = DayScenario("ramp", Traffic("ramp", rates, first_minute=700), SystemChanges.none(40, 2))
    return BalancerEvaluation(known, course, known.engine.pool(60, seed=9), seed=3)


def test_the_score_is_what_one_works_out_by_hand():
    minutes = pd.DataFrame(
        {
            "requests": [10, 30], "revenue": [1.0, 2.0],
            "load_a": [1.0, 3.0], "budget_a": [2.0, 2.0], "price_a": [0.0, 4.0], "degradation_a": [0, 0],
            "load_b": [8.0, 6.0], "budget_b": [8.0, 4.0], "price_b": [1.0, 1.0], "degradation_b": [0, 2],
            "dropped_a": [0.0, 0.1], "dropped_b": [0.0, 0.0],
        }
    )  # fmt: skip
    priced = np.array([[False, True], [True, True]])
    found = score(minutes, ("a", "b"), priced)
    assert found["mu"] == pytest.approx({"a": 0.75, "b": 1.0, "all": (1 + 2 + 8 + 4) / 16})
    assert found["nu"] == pytest.approx({"a": 0.25, "b": 0.25, "all": 3 / 16})
    assert found["priced_mu"] == pytest.approx({"a": 1.0, "b": 1.0, "all": 1.0})
    assert found["priced_nu"] == pytest.approx({"a": 0.5, "b": 0.25, "all": 3 / 14})
    assert found["priced_share"] == pytest.approx({"a": 0.5, "b": 1.0, "all": 0.75})
    assert found["travel"] == pytest.approx((4 / 2 + 0) / 2)
    assert found["degraded"] == 0.5
    assert found["lost"] == pytest.approx(0.1 * 30 / 40)
    never = score(minutes, ("a", "b"), np.zeros((2, 2), dtype=bool))
    assert np.isnan(never["priced_mu"]["all"])


def test_the_clairvoyant_is_never_over_and_fills_what_can_be_filled(judge):
    minutes, found = judge.run("clairvoyant")
    load, budget = (minutes[[f"{k}_retrieval", f"{k}_ranking"]].to_numpy() for k in ("load", "budget"))
    assert np.all(load <= budget * (1 + 1e-6))
    assert found["bound_share"] <= 1 + 1e-6
    assert 0 < judge.priced.mean() < 1
    assert not judge.priced[:10].any()  # a tenth of the peak does not fill the budget
    free, _ = judge.run("static")
    for g, name in enumerate(("retrieval", "ranking")):
        assert found["priced_mu"][name] > 0.9
        idle = ~judge.priced[:, g]
        assert np.all(minutes[f"load_{name}"][idle] >= free[f"load_{name}"][idle] - 1e-9)


def test_the_clairvoyant_knows_of_losses_and_drift(known):
    changes = SystemChanges(np.full((30, 2), 0.8), np.full((30, 2), 1.2))
    course = DayScenario("poor", Traffic("flat", np.full(30, 40.0), first_minute=700), changes)
    one = BalancerEvaluation(known, course, known.engine.pool(60, seed=9), seed=3)
    minutes, found = one.run("clairvoyant")
    assert np.allclose(minutes["budget_ranking"], 0.8 * known.scenario.budgets[1])
    assert found["nu"]["all"] == pytest.approx(0.0, abs=1e-3)
    assert found["bound_share"] <= 1 + 1e-6
    rich = BalancerEvaluation(known, DayScenario("rich", course.traffic, SystemChanges.none(30, 2)), one.pool, seed=3)
    assert rich.bound > one.bound


@pytest.fixture(scope="module")
def short(judge: BalancerEvaluation) -> BalancerEvaluation:
    course = DayScenario("short", Traffic("short", np.full(6, 80.0), first_minute=700), SystemChanges.none(6, 2))
    return BalancerEvaluation(judge.calibration, course, judge.pool, seed=3)


@pytest.mark.parametrize("name", [m for m in METHODS if m != "clairvoyant"])
def test_every_method_runs_and_repeats_itself(short, name):
    minutes, found = short.run(name)
    again, _ = short.run(name)
    pd.testing.assert_frame_equal(minutes, again)
    assert np.isfinite(minutes.to_numpy()).all()
    assert 0 < found["mu"]["all"] <= 1
    assert set(found["events"]) <= {"range"}


def test_a_loss_of_machines_is_seen_a_minute_later(known):
    seen = []

    class Spy(FeedbackBalancer):
        def update(self, observation):
            seen.append(observation.budget.copy())
            return super().update(observation)

    from marca_env.traffic.day_simulator import replay
    from marca_env.traffic.policies import PricedPolicy
    from marca_env.traffic.simulated_system import draw_arrivals

    pool, traffic = known.pool, Traffic("flat", np.full(6, 40.0))
    changes = SystemChanges.none(6, 2)
    changes.capacity[3:5] = 0.5
    policy = PricedPolicy("spy", pool.outcomes["revenue"], pool.costs, Spy())
    minutes = replay(policy, pool, traffic, draw_arrivals(pool, traffic, 0), changes=changes)
    whole = known.scenario.budgets[0]
    assert (minutes["budget_retrieval"] / whole).tolist() == pytest.approx([1, 1, 1, 0.5, 0.5, 1])
    assert [b[0] / whole for b in seen] == pytest.approx([1, 1, 1, 1, 0.5, 0.5])


def test_what_is_announced_is_forecast(known):
    course = generated("flash-sale", known.scenario, 2)
    start = int(np.argmax(course.announced > 0))
    forecasts = []
    for announced in (False, True):
        forecaster = known.forecaster(course.traffic.history_days(), course.announced if announced else None)
        for minute in range(start - 30, start):
            forecaster.observe(minute, course.traffic.qps[minute])
        forecasts.append(forecaster.forecast(1)[0])
    assert forecasts[1] / course.traffic.qps[start] == pytest.approx(1.0, abs=0.25)
    assert forecasts[0] < 0.3 * course.traffic.qps[start]


@pytest.fixture(scope="module")
def home(tiny_scenario, tiny_artefacts, tmp_path_factory) -> Path:
    """The folder of a scenario of one's own."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_artefacts, folder, dirs_exist_ok=True)
    tiny_scenario.save(folder / "scenario.yaml")
    return folder


# -- the command ----------------------------------------------------------------------------------------------------
TINY = ["--minutes", "12", "--requests", "40", "--days", "1", "--epochs", "2", "--tuning", "5"]


def test_the_command_writes_tables_and_figures(home, tmp_path, capsys):
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
    again = ["--model", str(out / "model"), "--methods", "mpc", "--out", str(tmp_path / "second")]
    assert main([*arguments, *again]) == 0
    second = pd.read_csv(tmp_path / "second" / "scores.csv")
    assert (
        second["mu_all"].tolist()
        == scores[(scores["method"] == "mpc") & (scores["settings"] == "{}")]["mu_all"].tolist()
    )


def test_an_interruption_keeps_what_is_done(home, tmp_path, monkeypatch, capsys):
    real, done = BalancerEvaluation.run, []

    def interrupted(self, name, settings=None, on_minute=None):
        if done:
            raise KeyboardInterrupt
        done.append(name)
        return real(self, name, settings, on_minute)

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
        (["--model", "a", "--log", "b"], "keep one of them"),
        (["--model", "nowhere"], "nowhere"),
        (["--log", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--trace", "nowhere.csv"], "nowhere.csv: no such trace file"),
        (["--minutes", "0"], "--minutes is 0"),
        (["--seeds", "-1"], "--seeds: -1 is negative"),
    ],
)
def test_bad_input_is_one_line(home, tmp_path, capsys, arguments, expected):
    assert main(["balance", "--scenario", str(home), *TINY, "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_a_log_of_other_clusters_is_reported_on_but_not_run(home, tmp_path, capsys):
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


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the published sample is not there")
def test_the_published_log_is_read_as_it_is(tmp_path):
    assert main(["balance", "--log", str(SAMPLE), "--fit-only", "--epochs", "2", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "summary.json").read_text())["model"]
    assert report["transitions"]["held_out"] >= 1
    assert set(report["steps"]) == {"1"}  # its rows come in pairs


def test_sweeps_are_read():
    assert read_sweep(["alpha=0.2,0.4", "horizon=5"]) == {"alpha": [0.2, 0.4], "horizon": [5]}
    assert read_sweep(["damping=measured,none", "rate_limit=null"]) == {
        "damping": ["measured", "none"],
        "rate_limit": [None],
    }


# -- the experiment -------------------------------------------------------------------------------------------------
def test_the_experiment_from_case_to_figure(known, tmp_path, monkeypatch):
    from benchmarks.experiments.balancing import experiment as balancing
    from benchmarks.suite.api import Row

    for cached in (balancing._pool, balancing._evaluation):
        monkeypatch.setattr(balancing, cached.__name__, functools.cache(cached.__wrapped__))  # of this test alone
    monkeypatch.setattr(balancing, "_calibration", lambda effort: known)
    monkeypatch.setenv("MARCA_TRACES", str(tmp_path / "none"))
    cases = balancing.cases(quick=True, seeds=(0, 1))
    assert {case.method for case in cases} == {"clairvoyant", "mpc", "feedback"}
    rows = [Row(case, balancing.measure(case, tmp_path), 1.0) for case in cases]
    again = balancing.measure(cases[1], tmp_path)
    assert json.dumps(again) == json.dumps(rows[1].numbers)  # whatever ran before; nan where no minute has a price
    (table,) = balancing.tables(rows)
    assert table.row_count == 3
    (figure,) = balancing.figures(rows, tmp_path).values()
    assert figure.stat().st_size > 10_000
    assert balancing.figures(rows[:2], tmp_path) == {}  # without one of the three
    assert balancing.figures([*rows[:2], *rows[5:]], tmp_path) == {}  # or with the third of another seed alone
    (partial,) = balancing.tables([*rows[1:3], rows[5]])  # the clairvoyant is not there yet
    assert [list(column.cells) for column in partial.columns[:2]] == [["mpc", "feedback"], ["1", "2"]]
    assert [next(iter(column.cells)).count("[") for column in partial.columns[4:6]] == [0, 0]  # of one seed


def test_the_full_experiment_has_every_day(tmp_path, monkeypatch):
    from benchmarks.experiments.balancing import experiment as balancing

    monkeypatch.setenv("MARCA_TRACES", str(tmp_path / "none"))
    cases = balancing.cases(quick=False)
    assert {case.task for case in cases} == set(GENERATED)  # the traces are not there
    assert len({case.key for case in cases}) == len(cases)
    for name in balancing.TRACES.values():
        (tmp_path / name).touch()
    monkeypatch.setenv("MARCA_TRACES", str(tmp_path))
    assert {case.task for case in balancing.cases(quick=False)} == {*GENERATED, *balancing.TRACES}
