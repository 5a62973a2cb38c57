"""Records that come with the package: they are of the experiments as they are now, and go beside one's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.cli.main import main
from benchmarks.suite import records, reference
from benchmarks.suite.registry import load
from benchmarks.suite.runner import plan
from benchmarks.suite.select_records import shown


def test_there_are_some() -> None:
    assert reference.available()


@pytest.mark.parametrize("name", reference.available())
def test_they_are_full_runs_of_todays_settings_with_all_seeds(name: str, tmp_path: Path) -> None:
    """After a change of settings this fails until somebody measures anew."""
    found = shown(name, reference.FOLDER / name)
    assert found.left_out == {}
    assert not found.quick
    assert not any("dirty" in row.about["revision"] for row in found.rows)
    assert main(["bench", "reference", name, "--out", str(tmp_path)]) == 0
    there = {(row.case.method, row.case.task) for row in found.rows}
    assert not there & {(case.method, case.task) for case in plan(name, tmp_path).todo}
    assert list(load(name).tables(shown(name, tmp_path / name).rows))


def test_what_one_has_measured_stays(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    name = reference.available()[0]
    first, *rest = shown(name, reference.FOLDER / name).rows
    mine = dataclasses.replace(first, seconds=1234.5)
    records.append(tmp_path / name, mine)
    assert main(["bench", "reference", name, "--out", str(tmp_path)]) == 0
    assert f"{name}: {len(rest)} rows added" in capsys.readouterr().out
    assert records.read(tmp_path / name) == [mine, *rest]
    assert main(["bench", "reference", name, "--out", str(tmp_path)]) == 0
    assert f"{name}: 0 rows added" in capsys.readouterr().out


def test_rows_of_other_settings_than_todays_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    first, second, *_ = shown("ranking", reference.FOLDER / "ranking").rows
    old = dataclasses.replace(second, case=dataclasses.replace(second.case, budget={"updates": 7}))
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "package")
    records.append(tmp_path / "package" / "ranking", first, old)
    assert main(["bench", "reference", "--out", str(tmp_path / "mine")]) == 0
    shown_then = capsys.readouterr().out
    assert "ranking: 1 rows added" in shown_then
    assert "ranking: 1 reference rows not added: of other settings than the experiment has now" in shown_then
    assert records.read(tmp_path / "mine" / "ranking") == [first]


def test_an_experiment_without_any_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "reference", "throughput"]) == 2
    assert "unknown experiment with rows in the package 'throughput'" in capsys.readouterr().err
