"""`marca decide`: what it writes, what it refuses, and that it goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.cli.main import main
from benchmarks.serving import batch_files
from tests.helpers.batch_policies import make_requests_table, write_policy_and_logs
from tests.helpers.cli import refuse
from tests.helpers.factories import make_tiny_scenario

SCENARIO = make_tiny_scenario()
FILES, ROWS = 3, 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a policy and three files of requests."""
    return write_policy_and_logs(tmp_path_factory.mktemp("decide"), SCENARIO, FILES, ROWS)


def arguments(folder: Path, out: Path, *options: str, prices: tuple[str, ...] = ("20", "10")) -> list[str]:
    words = ["decide", "--policy", str(folder / "policy"), "--requests", str(folder / "logs/*.parquet")]
    return [*words, "--prices", *prices, "--out", str(out), *options]


def read_actions(path: Path) -> np.ndarray:
    return pd.read_parquet(path)[list(SCENARIO.decision_names)].to_numpy()


def test_the_files_hold_the_decisions_of_the_policy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(folder, tmp_path, "--keys", "id", "--values", "--batch-size", "64")) == 0
    shown = capsys.readouterr()
    assert "Files: 3 decided, 0 decided before, 0 failed." in shown.out
    assert f"decide: {FILES * ROWS} of {FILES * ROWS}" in shown.err
    policy = AllocationPolicy.load(folder / "policy")
    for k in range(FILES):
        log = pd.read_parquet(folder / "logs" / f"{k}.parquet")
        expected = policy.decide(log[list(SCENARIO.state_columns)].to_numpy(), np.array([20.0, 10.0]))
        np.testing.assert_array_equal(read_actions(tmp_path / f"{k}.parquet"), expected)
        decided = pd.read_parquet(tmp_path / f"{k}.parquet")
        assert decided["id"].tolist() == log["id"].tolist()
        assert decided["value"].notna().all()


def test_prices_are_numbers_names_or_a_file(folder: Path, tmp_path: Path) -> None:
    board = {"format": 1, "clusters": ["ranking", "retrieval"], "version": 3, "prices": [10.0, 20.0]}
    (tmp_path / "prices.json").write_text(json.dumps(board))
    (tmp_path / "named.yaml").write_text("ranking: 10\nretrieval: 20\n")
    given = [("20", "10"), ("ranking=10", "retrieval=20")]
    given += [(str(tmp_path / name),) for name in ("prices.json", "named.yaml")]
    for k, prices in enumerate(given):
        assert main(arguments(folder, tmp_path / str(k), prices=prices)) == 0
        np.testing.assert_array_equal(
            read_actions(tmp_path / str(k) / "1.parquet"), read_actions(tmp_path / "0" / "1.parquet")
        )


def test_it_goes_on_after_an_interruption(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decide, calls = batch_files.BatchDecider.decide, []

    def interrupted(self: Any, requests: Any) -> Any:
        calls.append(len(requests))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return decide(self, requests)

    monkeypatch.setattr(batch_files.BatchDecider, "decide", interrupted)
    assert main(arguments(folder, tmp_path / "out", "--batch-size", "64")) == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0.parquet"]
    first = (tmp_path / "out" / "0.parquet").stat().st_mtime_ns
    monkeypatch.undo()
    capsys.readouterr()
    assert main(arguments(folder, tmp_path / "out")) == 0
    assert "Files: 2 decided, 1 decided before, 0 failed." in capsys.readouterr().out
    assert (tmp_path / "out" / "0.parquet").stat().st_mtime_ns == first
    assert main(arguments(folder, tmp_path / "whole")) == 0
    for k in range(FILES):
        whole = pq.read_table(tmp_path / "whole" / f"{k}.parquet")
        assert pq.read_table(tmp_path / "out" / f"{k}.parquet").equals(whole)


def test_other_settings_are_refused_and_again_decides_all(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(folder, tmp_path)) == 0
    capsys.readouterr()
    error = refuse(arguments(folder, tmp_path, "--static", "0,0,0,0", prices=("20", "11")), capsys)
    assert "0.parquet: decided with other settings (prices, static action); give another --out" in error
    assert main(arguments(folder, tmp_path, "--again", prices=("20", "11"))) == 0
    assert "Files: 3 decided, 0 decided before" in capsys.readouterr().out


def test_a_damaged_file_does_not_stop_the_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0.parquet").write_text("PAR1 and no more")
    pq.write_table(make_requests_table(SCENARIO, 5).drop_columns("uv"), tmp_path / "1.parquet")
    log = make_requests_table(SCENARIO, 5).to_pandas().assign(w=[0, 1, 2, 3, 4])
    log.to_parquet(tmp_path / "2.parquet")
    words = ["--policy", str(folder / "policy"), "--prices", "20", "10", "--static", "0,0,0,0"]
    assert main(["decide", *words, "--requests", str(tmp_path), "--out", str(tmp_path.parent / "decided")]) == 1
    shown = capsys.readouterr()
    assert "unseen-value in 'w' (static action)" in shown.out
    assert "Files: 1 decided, 0 decided before, 2 failed." in shown.out
    errors = [line for line in shown.err.splitlines() if line.startswith("marca: error: ")]
    assert len(errors) == 2
    assert "0.parquet: cannot be read" in errors[0]
    assert "1.parquet: column 'uv' is missing" in errors[1]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--prices", "20"], "--prices of shape (1,); give one number per cluster (retrieval, ranking)"),
        (["--prices", "20", "-1"], "--prices: -1 for cluster 'ranking'"),
        (["--prices", "20", "1e30"], "--prices: 1e+30 is more than 1e+15"),
        (["--prices", "retrieval=20"], "--prices: cluster 'ranking' has none"),
        (["--prices", "retrieval=20", "rankin=1"], "did you mean 'ranking'?"),
        (["--prices", "nowhere.json"], "nowhere.json: no such file"),
        (["--static", "truncation=6"], "--static: unknown option of truncation '6'"),
        (["--keys", "nothing"], "column 'nothing' is missing"),
        (["--features", "nowhere"], "nowhere: no such file"),
        (["--workers", "0"], "--workers is 0"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--requests", "nowhere/*.parquet"], "nowhere/*.parquet: no file matches"),
        (["--policy", "nowhere"], "nowhere"),
        (["--device", "cudda"], "device 'cudda' cannot be used here"),
    ],
)
def test_wrong_options_are_one_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    fault: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments(folder, tmp_path / "out"), *options]) in (1, 2)
    assert fault in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.parquet"))
