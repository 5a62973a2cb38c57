"""Fixtures of the tests of ``agents``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agents.offline.rows import encode_rows
from marca_env.scenario.scenario import Scenario
from tests.helpers.request_logs import write_parquet


@pytest.fixture(scope="module")
def rows(tiny_requests: pd.DataFrame, tiny_scenario: Scenario) -> np.ndarray:
    """Return the tiny request log as compact rows."""
    return encode_rows(tiny_requests, tiny_scenario)


@pytest.fixture(scope="module")
def numbered_log(tiny_requests: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 6,000 rows into three files and 21 row groups; the revenue is the row number."""
    folder = tmp_path_factory.mktemp("log")
    numbered = tiny_requests.assign(revenue=np.arange(6000, dtype=float))
    for k in range(3):
        write_parquet(numbered.iloc[2000 * k : 2000 * (k + 1)], folder / f"{k}.parquet")
    return folder
