"""Request logs as compact, checked rows, piece by piece.

A row is 36 bytes in the default scenario; the episode that it stands for takes a hundred times as much, so logs are
kept and shuffled as rows and become episodes only when a minibatch is drawn (:mod:`agents.offline.episodes`). Needs no ray.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from agents.offline.chunks import Piece, log_files, log_pieces, separator, unreadable
from agents.offline.splits import Split
from marca_env.logs import published_samples
from marca_env.logs.schema import check_table, request_columns
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import shipped_folder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def row_type(scenario: Scenario) -> np.dtype:
    """A request as one element of a structured array: ``states`` (F,), ``actions`` (D,), ``results`` (S,), ``reward``.

    Codes are int16 (int32 if the scenario has more than 32,767 of a kind), the others float32; reward in currency.
    """
    largest = max(*map(int, scenario.feature_sizes), *map(int, scenario.action_shape))
    code = np.int16 if largest <= np.iinfo(np.int16).max else np.int32
    return np.dtype(
        [
            ("states", code, (len(scenario.features),)),
            ("actions", code, (len(scenario.decisions),)),
            ("results", np.float32, (len(scenario.stages),)),
            ("reward", np.float32),
        ]
    )


def rows_of(log: pd.DataFrame, scenario: Scenario, *, reward: str = "revenue") -> np.ndarray:
    """A checked request log as compact rows (M,); ``reward``: the column to be maximised."""
    rows = np.empty(len(log), row_type(scenario))
    rows["states"] = log[list(scenario.feature_names)].to_numpy()
    rows["actions"] = log[list(scenario.decision_names)].to_numpy()
    rows["results"] = log[[f"result_{name}" for name in scenario.stage_names]].to_numpy()
    rows["reward"] = log[reward].to_numpy()
    return rows


def read_piece(piece: Piece, scenario: Scenario) -> np.ndarray:
    """The checked rows of a piece, (M,) of :func:`row_type`.

    Raises:
        InputError: a file that cannot be read, or a bad value, naming file, row and column.
    """

    where = f"{piece.path}, rows {piece.first_row + 1} to {piece.first_row + piece.rows}"
    try:
        if piece.kind == "sample":
            return _sample_rows(piece.path, scenario)
        frame = _parquet_frame(piece, scenario) if piece.kind == "parquet" else _csv_frame(piece)
    except (pa.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise unreadable(where, error) from None
    if not isinstance(frame.index, pd.RangeIndex):  # what pandas makes of them
        raise InputError(f"{where}: more fields than the header; name every column, or drop the surplus")
    if len(frame) != piece.rows:
        remedy = "remove blank lines and line breaks in fields"
        raise InputError(f"{where}: {len(frame)} rows in {piece.rows} lines; {remedy}")
    return rows_of(check_table(frame, request_columns(scenario), piece.path, first_row=piece.first_row), scenario)


def _parquet_frame(piece: Piece, scenario: Scenario) -> pd.DataFrame:
    with pq.ParquetFile(piece.path) as file:
        columns = [c.name for c in request_columns(scenario)]
        table = file.read_row_group(piece.start, columns=columns, use_threads=False)
    return table.to_pandas(ignore_metadata=True)


def _csv_frame(piece: Piece) -> pd.DataFrame:
    with open(piece.path, "rb") as file:
        file.seek(piece.start)
        data = file.read(piece.stop - piece.start)
    return pd.read_csv(
        io.BytesIO(data), header=None, names=list(piece.header), sep=separator(piece.path), skip_blank_lines=True
    )


def _sample_rows(path: str, scenario: Scenario) -> np.ndarray:
    """The published sample: action results, which it lacks, are those that the shipped cost model expects."""
    frame = check_table(*published_samples.request_sample(path, scenario), path)
    if "revenue" not in frame.columns:
        raise InputError(f"{path}: column 'revenue' is missing; learning needs a log with the revenue of each request")
    states = frame[list(scenario.feature_names)].to_numpy(np.int64)
    actions = frame[list(scenario.decision_names)].to_numpy(np.int64)
    results = _cost_model(scenario.name).results(states, actions)
    named = {f"result_{name}": results[:, k] for k, name in enumerate(scenario.stage_names)}
    return rows_of(frame.assign(**named), scenario)


@lru_cache(maxsize=2)
def _cost_model(name: str) -> Any:
    return CostModel.load(shipped_folder(name) / "cost_model")


def load_rows(
    sources: str | Path | Sequence[str | Path],
    scenario: Scenario | str = "default",
    *,
    split: Split | None = None,
    part: str = "train",
) -> np.ndarray:
    """A whole log, or one part of it, as compact rows (M,) of :func:`row_type`.

    Args:
        sources: files, folders or globs of Parquet and CSV.
        split: how the log is divided; ``None``: not at all.
        part: ``train``, ``validation`` or ``test``.

    Raises:
        InputError: anything wrong with the log, or a part without rows.
    """
    scenario = Scenario.load(scenario)
    return rows_in(log_pieces(log_files(sources), scenario), scenario, split, part)


def rows_in(pieces: Sequence[Piece], scenario: Scenario, split: Split | None = None, part: str = "train") -> np.ndarray:
    """As :func:`load_rows`, of the pieces of a whole log."""
    total = sum(p.rows for p in pieces)
    kept = []
    for piece in pieces:
        rows = read_piece(piece, scenario)
        if split is not None:
            rows = rows[split.mask(part, piece.file, piece.first_row, piece.offset, len(rows), total)]
        kept.append(rows)
    rows = np.concatenate(kept)
    if len(rows) == 0:
        raise InputError(f"{pieces[0].path}: no rows in the part {part!r} of the log; give it a larger share")
    return rows
