"""Request logs as compact, checked rows, read chunk by chunk.

A row takes 36 bytes in the default scenario. Its episode takes a hundred times as much. Logs are therefore stored and
shuffled as rows; rows become episodes when a minibatch is drawn (:mod:`agents.offline.episodes`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from agents.offline.chunks import LogChunk, log_chunks, log_files, separator
from agents.offline.splits import Split
from marca_env.integration.logged_system import headerless_requests
from marca_env.logs.log_files import unreadable
from marca_env.logs.schema import check_table, request_columns, state_table
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import artefact_folder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

_EXACT = 2**24
"""Whole numbers up to this are exact in float32."""


def row_type(scenario: Scenario) -> np.dtype:
    """Return the structured dtype of one request: ``states`` (W,), ``actions`` (D,), ``results`` (R,), ``reward``.

    Codes are int16 (int32 if a feature or decision has more than 32,767 codes), the other fields float32, and so are
    states of scenarios with numbers (float64 if a feature has more codes than float32 holds exactly). The reward is in
    currency.
    """
    most = max((feature.size for feature in scenario.features if feature.kind == "category"), default=0)
    code = np.int16 if max(most, *map(int, scenario.action_shape)) <= np.iinfo(np.int16).max else np.int32
    state = code if scenario.is_categorical else np.float32 if most <= _EXACT else np.float64
    return np.dtype(
        [
            ("states", state, (len(scenario.state_columns),)),
            ("actions", code, (len(scenario.decisions),)),
            ("results", np.float32, (len(scenario.result_columns),)),
            ("reward", np.float32),
        ]
    )


def row_states(rows: np.ndarray, scenario: Scenario) -> np.ndarray:
    """Return the states (M, W) of rows: int64, or float64 where features are numbers."""
    return rows["states"].astype(np.int64 if scenario.is_categorical else np.float64)


def encode_rows(log: pd.DataFrame, scenario: Scenario, *, reward: str = "revenue") -> np.ndarray:
    """Encode a checked request log as compact rows (M,); ``reward`` is the column to be maximised."""
    rows = np.empty(len(log), row_type(scenario))
    rows["states"] = state_table(scenario, log)
    rows["actions"] = log[list(scenario.decision_names)].to_numpy()
    rows["results"] = log[list(scenario.result_columns)].to_numpy()
    rows["reward"] = log[reward].to_numpy()
    return rows


def read_chunk(chunk: LogChunk, scenario: Scenario) -> np.ndarray:
    """Read and check the rows of a chunk, (M,) of :func:`row_type`.

    Raises:
        InputError: an unreadable file, or a bad value; the message names file, row and column.
    """
    place = f"{chunk.path}, rows {chunk.first_row + 1} to {chunk.first_row + chunk.rows}"
    try:
        if chunk.kind == "sample":
            return _sample_rows(chunk.path, scenario)
        frame = _parquet_frame(chunk, scenario) if chunk.kind == "parquet" else _csv_frame(chunk)
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise unreadable(place, error) from None
    if not isinstance(frame.index, pd.RangeIndex):  # pandas turns surplus fields into an index
        raise InputError(f"{place}: more fields than the header; name every column, or remove the extra fields")
    if len(frame) != chunk.rows:
        remedy = "remove blank lines and line breaks in fields"
        raise InputError(f"{place}: {len(frame)} rows in {chunk.rows} lines; {remedy}")
    return encode_rows(check_table(frame, request_columns(scenario), chunk.path, first_row=chunk.first_row), scenario)


def _parquet_frame(chunk: LogChunk, scenario: Scenario) -> pd.DataFrame:
    with pq.ParquetFile(chunk.path) as file:
        columns = [c.name for c in request_columns(scenario)]
        table = file.read_row_group(chunk.start, columns=columns, use_threads=False)
    return table.to_pandas(ignore_metadata=True)


def _csv_frame(chunk: LogChunk) -> pd.DataFrame:
    with open(chunk.path, "rb") as file:
        file.seek(chunk.start)
        data = file.read(chunk.stop - chunk.start)
    return pd.read_csv(
        io.BytesIO(data), header=None, names=list(chunk.header), sep=separator(chunk.path), skip_blank_lines=True
    )


def _sample_rows(path: str, scenario: Scenario) -> np.ndarray:
    """Read a log without a header; it lacks action results, which the scenario's cost model predicts."""
    frame = check_table(*headerless_requests(path, scenario), path)
    if "revenue" not in frame.columns:
        raise InputError(f"{path}: column 'revenue' is missing; use a log with the revenue of each request")
    states = state_table(scenario, frame)
    actions = frame[list(scenario.decision_names)].to_numpy(np.int64)
    results = _cost_model(artefact_folder(scenario) / "cost_model").results(states, actions)
    result_columns = {name: results[:, k] for k, name in enumerate(scenario.result_columns)}
    return encode_rows(frame.assign(**result_columns), scenario)


@lru_cache(maxsize=2)
def _cost_model(folder: Path) -> CostModel:
    return CostModel.load(folder)


def load_rows(
    sources: str | Path | Sequence[str | Path],
    scenario: Scenario | str | Path = "default",
    *,
    split: Split | None = None,
    part: str = "train",
) -> np.ndarray:
    """Read a log, or one part of it, as compact rows (M,) of :func:`row_type`.

    Args:
        sources: files, folders or globs of Parquet and CSV.
        scenario: preset, YAML file or Scenario of the log.
        split: how the log is divided; ``None``: it is not divided.
        part: ``train``, ``validation`` or ``test``.

    Raises:
        InputError: an invalid log, or a part without rows.
    """
    scenario = Scenario.load(scenario)
    return read_rows(log_chunks(log_files(sources), scenario), scenario, split, part)


def read_rows(
    chunks: Sequence[LogChunk], scenario: Scenario, split: Split | None = None, part: str = "train"
) -> np.ndarray:
    """Read all chunks of a log, or one part of it; see :func:`load_rows`."""
    total = sum(c.rows for c in chunks)
    parts = []
    for chunk in chunks:
        rows = read_chunk(chunk, scenario)
        if split is not None:
            rows = rows[split.mask(part, chunk.file, chunk.first_row, chunk.offset, len(rows), total)]
        parts.append(rows)
    rows = np.concatenate(parts)
    if len(rows) == 0:
        raise InputError(f"{chunks[0].path}: no rows in the part {part!r} of the log; increase its share")
    return rows
