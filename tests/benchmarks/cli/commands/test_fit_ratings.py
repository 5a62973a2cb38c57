"""``marca fit --ratings``: the folder, its budgets, and options that do not go together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cli.main import main
from marca_env.integration.ratings.budgets import USUAL_SHARE
from marca_env.logs.log_files import write_cost_log
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from tests.helpers.cli import refuse
from tests.helpers.factories import make_cost_log
from tests.helpers.ratings import make_ratings, write_tables


@pytest.mark.slow
def test_a_table_of_ratings_becomes_a_scenario_with_fitted_models(
    tiny_scenario: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratings, items = write_tables(tmp_path)
    tiny_scenario.save(tmp_path / "tiny.yaml")
    write_cost_log(make_cost_log(tiny_scenario), tmp_path / "costs.csv")
    out, logs = tmp_path / "rated", ["--costs", str(tmp_path / "costs.csv"), "--rows", "200", "--members", "1"]
    command = ["fit", "--ratings", str(ratings), "--items", str(items), "--scenario", str(tmp_path / "tiny.yaml")]
    assert main([*command, *logs, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "explicit feedback: 1,920 ratings of 80 users and 60 items" in printed
    assert "RMSE on 320 held-out pairs: factors" in printed
    assert "warning" not in printed
    report = json.loads((out / "ratings.json").read_text())
    assert report["counts"]["items_without_ratings"] == 2
    assert report["factorisation"]["beats_baselines"]
    assert report["categories"]["count"] == 4

    scenario = Scenario.load(out)
    assert (scenario.name, scenario.catalogue.items, scenario.catalogue.dim) == ("rated", 60, 8)
    costs = Engine.load(scenario).pool(300, seed=0)
    highest = np.average(costs.costs, axis=0, weights=costs.weights).max(axis=0)
    np.testing.assert_allclose(scenario.budgets, USUAL_SHARE * scenario.peak_qps * highest, rtol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--items", "i.csv"], "--items describes a table of ratings; pass --ratings FILE"),
        (["--user-column", "u"], "--user-column describes a table of ratings"),
        (["--ratings", "none.csv"], "none.csv: no such file"),
        (["--ratings", "{ratings}", "--requests", "{ratings}"], "--requests describes logs of your own system"),
        (["--ratings", "{ratings}", "--feedback", "both"], "unknown feedback 'both'"),
        (["--ratings", "{ratings}", "--factors", "1"], "--factors is 1; it must be at least 2"),
        (["--ratings", "{ratings}", "--time-column", "time"], "did you mean 'timestamp'"),
        (["--ratings", "{ratings}", "--scenario", "stages-3-v0"], "needs those of the live cascade"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_measured(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_ratings().to_csv(tmp_path / "r.csv", index=False)
    words = [word.format(ratings=tmp_path / "r.csv") for word in options]
    assert message in refuse(["fit", "--out", str(tmp_path / "out"), *words], capsys)
    assert not (tmp_path / "out" / "world.npz").exists()
