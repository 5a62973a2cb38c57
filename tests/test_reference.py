"""Records that come with the package: they are of the experiments as they are now, and go beside one's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks import records, reference
from benchmarks.cli import main
from benchmarks.runner import plan
from benchmarks.showing import shown, tables


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
    assert list(tables(name, tmp_path / name))


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


def test_an_experiment_without_any_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "reference", "throughput"]) == 2
    assert "unknown experiment with rows in the package 'throughput'" in capsys.readouterr().err
