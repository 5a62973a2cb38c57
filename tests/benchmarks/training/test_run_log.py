"""The log of a run: complete lines after a kill, resumed files, TensorBoard events."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.training.run_log import RunLog, read_lines
from tests.helpers.tensorboard import scalars


def test_a_resumed_run_continues_the_complete_lines_of_a_killed_one(tmp_path: Path) -> None:
    """A cut line is skipped, iterations that a resumed run repeats are replaced, columns may come later."""
    with RunLog(tmp_path) as log:
        for k in range(1, 5):
            log.write({"training_iteration": k, "loss": 0.1 * k})
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"training_iteration": 5, "lo')
    with RunLog(tmp_path) as log:
        log.write({"training_iteration": 3, "loss": 9.0, "late": 1.0})
    assert [(r["training_iteration"], r["loss"]) for r in read_lines(tmp_path)] == [(1, 0.1), (2, 0.2), (3, 9.0)]
    text = (tmp_path / "progress.csv").read_text().split()
    assert text == ["training_iteration,late,loss", "1,,0.1", "2,,0.2", "3,1.0,9.0"]


def test_a_run_resumed_within_a_second_keeps_its_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorboardX.event_file_writer.time.time", lambda: 1.7e9)
    for iteration in (1, 2):
        with RunLog(tmp_path) as log:
            log.write({"training_iteration": iteration, "loss": float(iteration)})
    assert scalars(tmp_path)["loss"] == {1: 1.0, 2: 2.0}


def test_opening_a_log_makes_no_folder(tmp_path: Path) -> None:
    with RunLog(tmp_path / "new" / "run"):
        assert not (tmp_path / "new").exists()
