"""`marca fit --outcomes --heldout`: the folder serves the records, and held-out requests stay apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import marca_env
from benchmarks.cli.main import main
from marca_env import Engine
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, Stage
from marca_env.utils.errors import InputError

ROWS, TRAIN = 60, 50


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    scenario = Scenario(
        name="recorded",
        stages=(
            Stage("first", "api", (Decision("model", "model", ("small", "large")),), signals=("confidence",)),
            Stage("second", "api", (Decision("again", "model", ("off", "large")),)),
        ),
        clusters=(Cluster("api", cores=2.0, budget=1.0),),
        features=(Feature("text", 2, kind="number"), Feature("request", ROWS, hidden=True)),
        peak_qps=10.0,
        prices=(1.0,),
    )
    scenario.save(folder / "system.yaml")
    rng = np.random.default_rng(0)
    states = pd.DataFrame(rng.normal(size=(ROWS, 2)), columns=["text_0", "text_1"]).assign(request=range(ROWS))
    joint = np.tile(scenario.joint_actions, (ROWS, 1))
    outcomes = pd.DataFrame({"request": np.repeat(np.arange(ROWS), 4), "model": joint[:, 0], "again": joint[:, 1]})
    for column in ("result_first", "result_second"):
        outcomes[column] = 10.0
    outcomes["signal_first_confidence"] = rng.normal(size=len(outcomes)).round(2)
    outcomes["cost_api"] = 0.1 + joint.sum(axis=1)
    outcomes["revenue"] = rng.random(len(outcomes)).round(2)
    outcomes.to_parquet(folder / "outcomes.parquet")
    states.iloc[TRAIN:].to_parquet(folder / "heldout.parquet")
    served = outcomes.iloc[np.arange(TRAIN) * 4 + rng.integers(4, size=TRAIN)].reset_index(drop=True)
    served = served.drop(columns=["request", "cost_api"]).assign(impressions=1.0, clicks=1.0, gmv=0.0)
    pd.concat([states.iloc[:TRAIN], served], axis=1).to_parquet(folder / "requests.parquet")
    parts = [("first", "queue"), ("first", "model:model=small"), ("first", "model:model=large")]
    parts += [("second", "queue"), ("second", "model:again=large"), ("first", "base"), ("second", "base")]
    same = {"cluster": "api", "value_bucket": 0, "qps": 0.0, "utilisation": 0.0, "machines": 1, "cores": 1, "repeat": 0}
    costs = [{"stage": s, "component": c, "queue_length": 10, "cost": 0.1, **same} for s, c in parts]
    pd.DataFrame(costs).to_csv(folder / "cost_log.csv", index=False)
    return folder


def fit(files: Path, out: Path, *extra: str) -> list[str]:
    logs = ["--requests", str(files / "requests.parquet"), "--costs", str(files / "cost_log.csv")]
    return ["fit", "--scenario", str(files / "system.yaml"), *logs, "--members", "1", "--out", str(out), *extra]


@pytest.mark.slow
def test_the_folder_serves_the_records(files: Path, tmp_path: Path):
    recorded = ["--outcomes", str(files / "outcomes.parquet"), "--heldout", str(files / "heldout.parquet")]
    assert not main(fit(files, tmp_path, *recorded))
    engine = Engine.load(Scenario.load(tmp_path))
    outcomes = pd.read_parquet(files / "outcomes.parquet")
    revenue = outcomes["revenue"].to_numpy(np.float32).reshape(ROWS, 4)
    states = engine.population.states
    np.testing.assert_array_equal(engine.true_table(states)[0], revenue[states[:, -1].astype(int)])
    assert np.abs(engine.table(states)[0] - engine.true_table(states)[0]).max() > 0.01  # models know no single request
    held_out = engine.on_heldout()
    env = marca_env.batched_env(64, engine=held_out)
    env.reset(seed=0)
    assert env.states[:, -1].min() >= TRAIN > engine.population.states[:, -1].max()
    pool = engine.heldout_pool()
    np.testing.assert_array_equal(pool.outcomes["revenue"], revenue[pool.states[:, -1].astype(int)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--heldout", "heldout.parquet"], "pass their outcomes with --outcomes"),
        (["--outcomes", "outcomes.parquet", "--heldout", "requests.parquet"], "request 0 is held out and in the"),
        (["--outcomes", "cost_log.csv"], "cost_log.csv: column 'request' is missing"),
        (["--outcomes", "none.parquet"], "none.parquet: no such file"),
    ],
)
def test_faults_are_named(files: Path, tmp_path: Path, capsys, options, message):
    paths = [option if option.startswith("--") else str(files / option) for option in options]
    assert main(fit(files, tmp_path, *paths)) == 2
    assert message in capsys.readouterr().err


def test_a_system_without_held_out_requests_says_so():
    with pytest.raises(InputError, match="has no held-out requests"):
        marca_env.Engine.load("stages-2-v0").on_heldout()
