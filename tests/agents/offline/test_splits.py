"""Splits of a log: disjoint parts with their shares, independent of chunks and appended files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agents.offline.rows import load_rows
from agents.offline.splits import PARTS, Split
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.request_logs import write_parquet


@pytest.mark.parametrize("by", ["hash", "period"])
def test_parts_are_disjoint_and_have_their_shares(
    by: str, tiny_requests: pd.DataFrame, tiny_scenario: Scenario, tmp_path: Path
) -> None:
    """Each row is in exactly one part, whatever the chunks."""
    frame = tiny_requests.assign(revenue=np.arange(6000, dtype=float))  # the row number
    write_parquet(frame, tmp_path / "a.parquet", 6000)
    write_parquet(frame, tmp_path / "b.parquet", 700)
    split = Split(by, validation=0.2, test=0.1, seed=3)
    rows_of_part = {}
    for part in PARTS:
        one, other = (
            load_rows(tmp_path / f, tiny_scenario, split=split, part=part) for f in ("a.parquet", "b.parquet")
        )
        assert np.array_equal(one, other)
        rows_of_part[part] = one["reward"].astype(int)
    assert sorted(np.concatenate(list(rows_of_part.values()))) == list(range(6000))
    assert len(rows_of_part["validation"]) == pytest.approx(1200, abs=0 if by == "period" else 100)
    assert len(rows_of_part["test"]) == pytest.approx(600, abs=0 if by == "period" else 80)
    if by == "period":
        assert rows_of_part["train"].max() < rows_of_part["validation"].min()
        assert rows_of_part["validation"].max() < rows_of_part["test"].min()
    else:
        assert abs(np.corrcoef(np.isin(np.arange(6000), rows_of_part["test"]), np.arange(6000))[0, 1]) < 0.05
        other = Split(by, validation=0.2, test=0.1, seed=4).mask("test", 0, 0, 0, 6000, 6000)
        both = np.isin(np.arange(6000), rows_of_part["test"]) & other
        assert both.sum() == pytest.approx(60, abs=30)  # seeds are independent


def test_hash_parts_do_not_change_when_files_are_added() -> None:
    split = Split("hash", seed=1)
    assert np.array_equal(split.mask("test", 2, 100, 900, 50, 1000), split.mask("test", 2, 100, 7000, 50, 90_000))
    assert not np.array_equal(split.mask("test", 1, 0, 0, 500, 500), split.mask("test", 2, 0, 0, 500, 500))


def test_invalid_splits_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'hash'"):
        Split("hsah")
    with pytest.raises(InputError, match="nothing is left to train on"):
        Split("hash", 0.5, 0.5)
    with pytest.raises(InputError, match=r"validation share is -0\.1"):
        Split("hash", -0.1, 0.5)
    with pytest.raises(InputError, match="unknown part 'tests'"):
        Split("hash").mask("tests", 0, 0, 0, 5, 5)
