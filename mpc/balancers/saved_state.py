"""The memory of balancers as values of JSON, so that a restarted controller continues where it stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from marca_env.utils.errors import InputError, shown
from marca_env.utils.validation import as_array


def to_lists(array: np.ndarray | None) -> Any:
    """Return an array as nested lists; ``None`` stands for NaN, for infinities and for no array."""
    if array is None:
        return None
    values = np.asarray(array, dtype=np.float64).astype(object)
    values[~np.isfinite(values.astype(np.float64))] = None
    return values.tolist()


def to_array(state: Mapping[str, Any], name: str, shape: tuple[int, ...], missing: float | None = None) -> np.ndarray:
    """Return an entry of a state as an array.

    Args:
        state: values of JSON.
        name: name of the entry.
        shape: its shape; −1 stands for any length.
        missing: what ``None`` stands for in it; ``None``: it must hold numbers.

    Raises:
        InputError: the entry is missing, or not numbers of that shape.
    """
    array = as_array(state.get(name)) if isinstance(state, Mapping) else np.empty(0, dtype=object)
    fits = array.ndim == len(shape) and all(n in (-1, m) for n, m in zip(shape, array.shape, strict=True))
    if fits and array.dtype == object and missing is not None:
        array = as_array([missing if value is None else value for value in array.ravel()]).reshape(array.shape)
    if not fits or array.dtype.kind not in "iuf" or (missing is None and not np.isfinite(array).all()):
        wanted = "×".join("n" if n < 0 else str(n) for n in shape)
        raise InputError(f"saved state: {name} is {shown(array.tolist())}; it must hold numbers of shape {wanted}")
    return array.astype(np.float64)


def to_optional_array(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return an entry of a state as an array; ``None`` if it is ``None``.

    Raises:
        InputError: the entry is neither ``None`` nor numbers of that shape.
    """
    return None if isinstance(state, Mapping) and state.get(name) is None else to_array(state, name, shape)


def to_number(state: Mapping[str, Any], name: str, missing: float | None = None) -> float:
    """Return an entry of a state as a number.

    Args:
        state: values of JSON.
        name: name of the entry.
        missing: what ``None`` stands for; ``None``: it must be a number.

    Raises:
        InputError: the entry is missing, or not a finite number.
    """
    value = state.get(name) if isinstance(state, Mapping) else None
    if value is None and missing is not None:
        return missing
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(f"saved state: {name} is {shown(value)}; it must be a finite number")
    return float(value)


def to_count(state: Mapping[str, Any], name: str) -> int:
    """Return an entry of a state as a whole number that is not negative.

    Raises:
        InputError: it is something else.
    """
    value = to_number(state, name)
    if value < 0 or value != int(value):
        raise InputError(f"saved state: {name} is {value:g}; it must be a whole number, not negative")
    return int(value)
