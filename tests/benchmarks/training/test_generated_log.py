"""Generated request logs: valid, sparse, of any size, and the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.training import generated_log
from benchmarks.training.generated_log import main, write_log
from marca_env.logs.log_files import read_request_log
from marca_env.models.engine import get_engine


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated_log, "FILE_ROWS", 2_000)
    monkeypatch.setattr(generated_log, "GROUP_ROWS", 500)


def test_a_log_is_valid_and_its_revenue_is_that_of_the_models(tmp_path: Path) -> None:
    (path,) = write_log(tmp_path, 1_000)
    log = read_request_log(path)
    assert len(log) == 1_000
    scenario, engine = get_engine("default").scenario, get_engine("default")
    states = log[list(scenario.state_columns)].to_numpy()
    expected = engine.evaluate(states, log[list(scenario.decision_names)].to_numpy())[2]
    error = 4 * log["revenue"].std() / len(log) ** 0.5
    assert log["revenue"].mean() == pytest.approx(expected.mean(), abs=error)
    assert (log["revenue"] == 0).mean() > 0.5


def test_a_longer_log_begins_with_a_shorter_one(tmp_path: Path) -> None:
    short, long = write_log(tmp_path / "short", 700, seed=3), write_log(tmp_path / "long", 2_100, seed=3)
    assert (len(short), len(long)) == (1, 2)
    frames = [pd.read_parquet(short[0]), pd.read_parquet(long[0])]
    pd.testing.assert_frame_equal(frames[0], frames[1].iloc[:700])
    assert len(pd.read_parquet(long[1])) == 100
    other = pd.read_parquet(write_log(tmp_path / "other", 700, seed=4)[0])
    assert not other.equals(frames[0])


def test_wrong_options_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--rows", "0"]) == 2
    assert "--rows is 0" in capsys.readouterr().err
    assert main(["--out", str(tmp_path), "--scenario", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
