"""The shuffle plan of a log: every row once per epoch, one order per seed, and access to any position."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from agents.offline.rows import load_rows
from agents.offline.shuffle_plan import read_window
from agents.offline.splits import Split
from marca_env.scenario.scenario import Scenario
from tests.helpers.request_logs import make_plan, rows_in_order, write_parquet


def test_an_epoch_reads_every_row_once_in_a_new_order(numbered_log: Path, tiny_scenario: Scenario) -> None:
    plan = make_plan(numbered_log, tiny_scenario)
    epochs = [rows_in_order(plan, e) for e in range(3)]
    assert all(sorted(e) == list(range(6000)) for e in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.array_equal(rows_in_order(make_plan(numbered_log, tiny_scenario), 2), epochs[2])
    assert not np.array_equal(rows_in_order(make_plan(numbered_log, tiny_scenario, seed=4), 0), epochs[0])
    windows = plan.windows(0)
    assert all(plan.counts[list(w)].sum() >= 1000 for w in windows[:-1])
    assert max(len(w) for w in windows) <= 5  # chunks of 300 and 200 rows
    # a window mixes files, and its rows are shuffled together
    first = epochs[0][:1000]
    assert len(np.unique(first // 2000)) > 1
    assert np.abs(np.diff(first)).mean() > 500


def test_positions_continue_from_any_row(numbered_log: Path, tiny_scenario: Scenario) -> None:
    plan = make_plan(numbered_log, tiny_scenario)

    def drawn(start: int, n: int) -> np.ndarray:
        rows: list[np.ndarray] = []
        for epoch, number, skipped in plan.positions(start):
            rows.append(plan.read(epoch, number)["reward"][skipped:])
            if sum(map(len, rows)) >= n:
                return np.concatenate(rows)[:n]
        raise AssertionError

    all_rows = drawn(0, 13_000)
    for start in (0, 1, 999, 1000, 5999, 6000, 6001, 12_345):
        assert np.array_equal(drawn(start, 600), all_rows[start : start + 600])


def test_only_training_rows_are_read(numbered_log: Path, tiny_scenario: Scenario) -> None:
    split = Split("hash", validation=0.1, test=0.3, seed=2)
    plan = make_plan(numbered_log, tiny_scenario, split=split)
    train_rows = load_rows(numbered_log, tiny_scenario, split=split)["reward"].astype(int)
    assert sorted(rows_in_order(plan, 0)) == sorted(train_rows)
    assert plan.counts.sum() == len(train_rows) < 4000
    late = make_plan(numbered_log, tiny_scenario, split=Split("period", validation=0.2, test=0.2))
    assert sorted(rows_in_order(late, 1)) == list(range(3600))
    assert set(np.concatenate([late.windows(1)[k] for k in range(len(late.windows(1)))])) <= set(range(21))


def test_positions_have_no_end(numbered_log: Path, tiny_scenario: Scenario) -> None:
    """A log smaller than a window is one window in every epoch."""
    plan = make_plan(numbered_log, tiny_scenario, window=10**6)
    assert list(islice(plan.positions(6000 * 5 + 7), 3)) == [(5, 0, 7), (6, 0, 0), (7, 0, 0)]


def test_a_deleted_file_is_one_error(tiny_requests: pd.DataFrame, tiny_scenario: Scenario, tmp_path: Path) -> None:
    write_parquet(tiny_requests.iloc[:600], tmp_path / "a.parquet")
    plan = make_plan(tmp_path, tiny_scenario)
    (tmp_path / "a.parquet").unlink()
    answer = read_window(plan, {"position": np.array([[0, 0]])})
    assert "a.parquet, rows " in answer["problem"][0]
    assert "cannot be read" in answer["problem"][0]
