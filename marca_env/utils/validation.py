"""Checks of options and of arrays of codes that users pass in."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import numpy as np

from marca_env.utils.errors import InputError, UnknownArgumentError, unknown_option

P = ParamSpec("P")
R = TypeVar("R")


def reject_unknown_options(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate ``function`` to refuse unknown keyword arguments and name the nearest valid one.

    Environments are often built from option files, where a typo should be one clear line. The error is also a
    ``TypeError`` with Python's wording: TorchRL drops an option of its own when it meets that.
    """
    parameters = inspect.signature(function).parameters
    valid = [name for name in parameters if name not in ("self", "core")]

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in parameters:
                hint = unknown_option("environment option", name, valid)
                raise UnknownArgumentError(f"got an unexpected keyword argument {name!r}: {hint}")
        return function(*args, **options)

    return checked


def check_codes(what: str, codes: np.ndarray, names: Sequence[str], sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return ``codes`` (…, n) as an array after checking that column k holds 0 … sizes[k] − 1.

    A code out of range would silently set the one-hot input of a neighbouring column.

    Args:
        what: ``state`` or ``action``, for the message.
        codes: integers.
        names: names of the columns.
        sizes: categories of each column.

    Raises:
        InputError: a wrong shape, numbers that are not integers, or a code out of range; names its row and column.
    """
    codes, sizes = np.asarray(codes), np.asarray(sizes)
    if codes.ndim == 0 or codes.shape[-1] != len(names) or codes.dtype.kind not in "iu":
        raise InputError(
            f"{what}s are {codes.dtype} of shape {codes.shape}; give whole numbers, "
            f"one column per name: {', '.join(names)}"
        )
    wrong = (codes < 0) | (codes >= sizes)
    if wrong.any():
        row, column = np.argwhere(wrong.reshape(-1, len(names)))[0]
        value = codes.reshape(-1, len(names))[row, column]
        raise InputError(f"{what} {row}: {names[column]} is {value}; it must lie in 0 to {sizes[column] - 1}")
    return codes
