"""Experiment ``allocation``: the plain loop, the dual bound, a quick run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.evaluation.quota_allocation import best_allocation, quota_allocation, quota_bound
from benchmarks.experiments.allocation import experiment as allocation
from benchmarks.suite.api import Row


def test_the_dual_bound_equals_the_optimum_and_exceeds_other_allocations() -> None:
    rng = np.random.default_rng(3)
    for spare in (0, 7):
        values = rng.normal(size=(60, 12)) + 2 * rng.normal(size=12)
        quotas = rng.multinomial(60 + spare, np.full(12, 1 / 12))
        best, greedy = best_allocation(values, quotas), quota_allocation(values, quotas)
        worth, less = (values[np.arange(60), chosen].sum() for chosen in (best, greedy))
        assert quota_bound(values, quotas, best) == pytest.approx(worth, rel=1e-9)
        assert less < worth < quota_bound(values, quotas, greedy)


def test_the_loop_equals_the_rule_with_ties() -> None:
    rng = np.random.default_rng(4)
    values, quotas = rng.integers(0, 5, (40, 9)).astype(np.float32), np.full(9, 5)
    assert np.array_equal(allocation.plain_loop(values, quotas), quota_allocation(values, quotas))


@pytest.mark.slow
def test_quick_run_from_case_to_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARCA_SAMPLES", str(tmp_path / "none"))
    cases = allocation.cases(quick=True, seeds=(0,))
    assert len({case.key for case in cases}) == len(cases)
    rows = [Row(case, allocation.measure(case, tmp_path), 0.0) for case in cases]
    for row in rows[:-1]:
        assert row.numbers["identical"]
        assert 0.5 < row.numbers["share_of_optimum"] <= 1
        assert row.numbers["program_share"] == pytest.approx(1)
        assert abs(row.numbers["bound_gap"]) < 1e-9
    assert "MARCA_SAMPLES" in rows[-1].numbers["skipped"]
    assert len(list(allocation.tables(rows))) == 3
    assert not list(allocation.tables([]))
