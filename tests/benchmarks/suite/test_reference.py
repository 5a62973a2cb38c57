"""Reference records: they belong to the experiments as they are now, and are added to the user's records."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.cli.main import main
from benchmarks.suite import records, reference
from benchmarks.suite.registry import load_experiment
from benchmarks.suite.runner import plan_run
from benchmarks.suite.select_records import select_records


def test_there_are_reference_records() -> None:
    assert reference.reference_names()


@pytest.mark.slow
@pytest.mark.parametrize("name", reference.reference_names())
def test_reference_records_are_full_runs_of_the_present_settings_with_all_seeds(name: str, tmp_path: Path) -> None:
    """Fails after a change of settings until the records are measured again."""
    selected = select_records(name, reference.FOLDER / name)
    assert selected.left_out == {}
    assert not selected.quick
    assert not any("dirty" in row.about["revision"] for row in selected.rows)
    assert main(["bench", "reference", name, "--out", str(tmp_path)]) == 0
    reference_cases = {(row.case.method, row.case.task) for row in selected.rows}
    assert not reference_cases & {(case.method, case.task) for case in plan_run(name, tmp_path).todo}
    assert list(load_experiment(name).tables(select_records(name, tmp_path / name).rows))


@pytest.mark.slow
def test_the_users_rows_stay(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    name = reference.reference_names()[0]
    first, *rest = select_records(name, reference.FOLDER / name).rows
    mine = dataclasses.replace(first, seconds=1234.5)
    records.append(tmp_path / name, mine)
    assert main(["bench", "reference", name, "--out", str(tmp_path)]) == 0
    assert f"{name}: {len(rest)} rows added" in capsys.readouterr().out
    assert records.read(tmp_path / name) == [mine, *rest]
    assert main(["bench", "reference", name, "--out", str(tmp_path)]) == 0
    assert f"{name}: 0 rows added" in capsys.readouterr().out


def test_rows_of_outdated_settings_are_reported_and_not_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    first, second, *_ = select_records("ranking", reference.FOLDER / "ranking").rows
    old = dataclasses.replace(second, case=dataclasses.replace(second.case, budget={"updates": 7}))
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "package")
    records.append(tmp_path / "package" / "ranking", first, old)
    assert main(["bench", "reference", "--out", str(tmp_path / "mine")]) == 0
    output = capsys.readouterr().out
    assert "ranking: 1 rows added" in output
    assert "ranking: 1 reference rows not added: of other settings than the experiment has now" in output
    assert records.read(tmp_path / "mine" / "ranking") == [first]


def test_an_experiment_without_reference_records_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "reference", "throughput"]) == 2
    assert "unknown experiment with reference records 'throughput'" in capsys.readouterr().err
