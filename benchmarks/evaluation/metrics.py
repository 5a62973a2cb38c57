"""Figures of merit: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import stats

from marca_env.utils.errors import InputError


def ratio_interval(
    numerator: np.ndarray, denominator: np.ndarray, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Paired bootstrap interval of Σ numerator / Σ denominator − 1 over blocks (blocks,).

    Blocks must be long enough to be about independent. With fewer than two blocks the interval is (nan, nan).
    """
    if len(numerator) < 2:
        return float("nan"), float("nan")
    result = stats.bootstrap(
        (numerator, denominator),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis) - 1.0,
        paired=True,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


# -- values ---------------------------------------------------------------------------------------------------------
def rising_order(values: np.ndarray) -> np.ndarray:
    """Order of ``values`` (any shape, flattened) from the lowest up, ties by index, int64 (n,); none may be nan.

    What a stable ``argsort`` returns; for float32 it sorts a whole number that holds value and index, which takes a
    fifth of the time.
    """
    flat = np.ravel(values)
    if flat.dtype != np.float32 or len(flat) >= 1 << 32:
        return np.argsort(flat, kind="stable")
    bits = (flat + np.float32(0.0)).view(np.int32)  # + 0 makes zeros alike
    rising = np.where(bits < 0, np.int64(-(1 << 31)) - bits, bits.astype(np.int64))
    keys = ((rising + (1 << 31)).astype(np.uint64) << np.uint64(32)) | np.arange(len(flat), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 up of ``values`` (any shape, flattened), float64 (n,); equal values share the mean of theirs."""
    flat = np.ravel(values)
    order = rising_order(flat)
    ordered = flat[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.append(starts, len(flat)))
    out = np.empty(len(flat))
    out[order] = np.repeat(starts + (sizes + 1) / 2, sizes)
    return out


def spearman(predicted: np.ndarray, true: np.ndarray, *, true_ranks: np.ndarray | None = None) -> float:
    """Spearman's rank correlation r_s over all entries of two arrays of the same shape; nan if either is constant.

    Args:
        true_ranks: :func:`ranks` of ``true``, for those who compare it again and again.

    Raises:
        InputError: shapes that differ, fewer than two entries, or values that are not finite.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.shape != true.shape or predicted.size < 2:
        raise InputError(
            f"r_s needs two arrays of one shape, two entries at least; got {predicted.shape}, {true.shape}"
        )
    if not (np.isfinite(predicted).all() and np.isfinite(true).all()):
        raise InputError("r_s needs finite values")
    a, b = ranks(predicted), ranks(true) if true_ranks is None else true_ranks
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def return_percent(earned: np.ndarray, best: np.ndarray) -> float:
    """Return% = 100 · Σ Q_model / Σ Q_ground_truth (Eq. 20): true values (M,) of what a model allocated, and of what an
    allocation by the true values earns under the same quotas. Above 100 where the greedy reference is not optimal.

    Raises:
        InputError: the reference earns nothing.
    """
    reference = float(np.sum(best, dtype=np.float64))
    if reference <= 0:
        raise InputError(f"Return% needs a reference that earns something; it earns {reference:g}")
    return 100.0 * float(np.sum(earned, dtype=np.float64)) / reference


def percentage_error(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """PE = predicted / true − 1, elementwise; nan where ``true`` is zero."""
    predicted, true = np.broadcast_arrays(np.asarray(predicted, float), np.asarray(true, float))
    return np.divide(predicted, true, out=np.full(true.shape, np.nan), where=true != 0) - 1.0


def absolute_percentage_error(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """AbsPE = max(predicted, true) / min(predicted, true) − 1, elementwise: twice and half are equally wrong; nan where
    the smaller is not positive."""
    predicted, true = np.broadcast_arrays(np.asarray(predicted, float), np.asarray(true, float))
    low, high = np.minimum(predicted, true), np.maximum(predicted, true)
    return np.divide(high, low, out=np.full(true.shape, np.nan), where=low > 0) - 1.0


def slice_errors(
    predicted: np.ndarray, true: np.ndarray, slices: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Errors of a prediction over groups of requests.

    Args:
        predicted: (M,) currency per request.
        true: (M,) likewise.
        slices: name → (M,) int group of each request, e.g. its user-value bucket.

    Returns:
        Per slice: ``pe`` and ``abs_pe``, those of the groups' sums, averaged with what the groups truly spent as
        weights (groups that spent nothing, or for which nothing is predicted, are left out); ``spearman`` of the
        groups' means, over the requests where there is one group only.
    """
    predicted, true = np.asarray(predicted, float), np.asarray(true, float)
    found = {}
    for name, group in slices.items():
        _, index, counts = np.unique(group, return_inverse=True, return_counts=True)
        believed, spent = (np.bincount(index.ravel(), weights=x) for x in (predicted, true))
        pairs = (predicted, true) if len(counts) == 1 else (believed / counts, spent / counts)
        found[name] = {
            "pe": _weighted(percentage_error(believed, spent), spent),
            "abs_pe": _weighted(absolute_percentage_error(believed, spent), spent),
            "spearman": spearman(*pairs),
        }
    return found


def _weighted(errors: np.ndarray, weights: np.ndarray) -> float:
    known = np.isfinite(errors)
    return float(np.average(errors[known], weights=weights[known])) if weights[known].sum() > 0 else float("nan")
