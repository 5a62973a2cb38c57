"""Evaluation of a file of predictions: how well predicted values rank and fit what requests earned, slice by slice.

This is the table of the published evaluation (arXiv 2512.24325): Spearman's r_s, PE and AbsPE over all requests, by
user value, by time window × placement, and by the option of each decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.evaluation.published_samples import ACTIONS, is_predictions, read_predictions
from benchmarks.evaluation.slice_calibration import slice_errors, value_errors
from marca_env.logs.log_files import read_table
from marca_env.logs.schema import Column, check_table
from marca_env.utils.errors import InputError, unknown_option

LABELS = ("revenue", "label", "consumption")
"""Columns that are taken for what the requests earned, the first that the file has."""
PUBLISHED_SLICES = ("uv", "w×g", *ACTIONS)
MARKS = ("prediction", "predicted", "output")
"""A column whose name has one of these words holds predictions."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of a file and what the requests earned; M requests."""

    label: str
    """Column with what each request earned."""
    true: np.ndarray
    """(M,) currency."""
    predicted: dict[str, np.ndarray]
    """Column → (M,) predicted currency."""
    slices: dict[str, np.ndarray]
    """Slice → (M,) group of each request; the first slice is ``all``."""

    def errors(self) -> pd.DataFrame:
        """Return a row for each prediction and slice: ``groups``, ``spearman``, ``pe`` (mean size) and ``abs_pe``."""
        rows = [
            {"prediction": name, "slice": slice_, "groups": len(np.unique(self.slices[slice_])), **errors}
            for name, values in self.predicted.items()
            for slice_, errors in slice_errors(values, self.true, self.slices).items()
        ]
        return pd.DataFrame(rows)

    def values(self) -> pd.DataFrame:
        """Return a row for each prediction, slice and group; see :func:`value_errors`."""
        rows = [
            {"prediction": name, **row}
            for name, values in self.predicted.items()
            for row in value_errors(values, self.true, self.slices)
        ]
        return pd.DataFrame(rows)


def read_predictions_file(
    path: str | Path,
    *,
    label: str | None = None,
    predictions: Sequence[str] | None = None,
    slices: Sequence[str] | None = None,
) -> Predictions:
    """Read a file of predictions.

    Args:
        path: a table with a header, CSV or Parquet, or the published ``predictions.tsv``, which has none.
        label: column with what each request earned; ``None``: ``revenue``, ``label`` or ``consumption``.
        predictions: columns of predicted values; ``None``: those whose names contain ``prediction``, ``predicted`` or
            ``output``.
        slices: columns whose values group the requests, two joined by ``×`` or ``+``; ``None``: ``uv``, ``w×g`` and
            ``a1`` … ``a5`` where the file has them, else all other columns with whole numbers or text and at most
            1,000 values.

    Raises:
        InputError: a file that cannot be read, a missing column, or fewer than two rows.
    """
    frame = read_table(path)
    if is_predictions(frame):
        frame = read_predictions(path)
    names = [str(name) for name in frame.columns]
    label = label if label is not None else next((name for name in LABELS if name in names), None)
    if label is None:
        raise InputError(f"{path}: no column {', '.join(LABELS)}; name the column of what requests earned with --label")
    if predictions is None:
        predictions = [name for name in names if any(mark in name.lower() for mark in MARKS) and name != label]
    if not predictions:
        raise InputError(
            f"{path}: no column is named prediction, predicted or output; name those to judge with --predictions"
        )
    for name in (label, *predictions):
        if name not in names:
            raise InputError(f"{path}: {unknown_option('column', name, names)}")
    columns = [Column(name, low=-np.inf) for name in dict.fromkeys((label, *predictions))]
    frame = check_table(frame, columns, path)
    if len(frame) < 2:
        raise InputError(f"{path}: one row; a rank correlation needs at least two")
    if slices is None:
        slices = _default_slices(frame, {label, *predictions})
    groups = {"all": np.zeros(len(frame), dtype=np.int64)}
    groups |= {name.replace("+", "×"): _groups(frame, name, path) for name in slices}
    predicted = {name: frame[name].to_numpy(float) for name in predictions}
    return Predictions(label, frame[label].to_numpy(float), predicted, groups)


def _default_slices(frame: pd.DataFrame, numbers: set[str]) -> list[str]:
    published = [s for s in PUBLISHED_SLICES if all(name in frame.columns for name in s.split("×"))]
    if published:
        return published
    others = [str(name) for name in frame.columns if name not in numbers]
    return [name for name in others if not pd.api.types.is_float_dtype(frame[name]) and frame[name].nunique() <= 1000]


def _groups(frame: pd.DataFrame, slice_: str, path: str | Path) -> np.ndarray:
    """Return the group of each request (M,): the values of a column, or of two as a text."""
    columns = slice_.replace("+", "×").split("×")
    for name in columns:
        if name not in frame.columns:
            raise InputError(f"{path}: slice {slice_!r}: {unknown_option('column', name, map(str, frame.columns))}")
    frame = check_table(frame, [Column(name, "text") for name in columns], path)
    return frame[columns].agg(", ".join, axis=1).to_numpy() if len(columns) > 1 else frame[columns[0]].to_numpy()
