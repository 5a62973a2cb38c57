"""Experiment ``sensitivity``: a quick run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.experiments.sensitivity import experiment as sensitivity
from tests.helpers.rows import measured_row

pytest.importorskip("ray", reason="training needs ray: pip install 'marca-env[rllib]'")


@pytest.mark.slow
def test_quick_run_from_case_to_table(tmp_path: Path) -> None:
    cases = sensitivity.cases(quick=True, seeds=(0,))
    assert {case.method for case in cases} == {"AWRQMixer", "mpc"}
    rows = [measured_row(sensitivity, case, tmp_path) for case in cases if "heads" not in case.task]
    assert [table.row_count for table in sensitivity.tables(rows)] == [1, 1]
