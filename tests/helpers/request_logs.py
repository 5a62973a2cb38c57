"""Request logs of the tiny scenario as files, and shuffle plans of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from agents.offline.chunks import log_chunks, log_files
from agents.offline.shuffle_plan import ShufflePlan
from marca_env.scenario.scenario import Scenario


def write_parquet(frame: pd.DataFrame, path: Path, row_group_size: int = 300) -> Path:
    """Write a Parquet file with row groups of ``row_group_size`` rows and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, row_group_size=row_group_size)
    return path


def make_plan(log: Path, scenario: Scenario, **options: Any) -> ShufflePlan:
    """Return a shuffle plan of a log."""
    return ShufflePlan(tuple(log_chunks(log_files(log), scenario)), scenario, **{"window": 1000, "seed": 3, **options})


def rows_in_order(plan: ShufflePlan, epoch: int) -> np.ndarray:
    """Return the row numbers of an epoch in the order of the draws; the revenue of a row is its number."""
    return np.concatenate([plan.read(epoch, k)["reward"] for k in range(len(plan.windows(epoch)))]).astype(int)
