"""Checks of options and of arrays of codes that users pass in."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

from marca_env.utils.errors import InputError, UnknownArgumentError, shown, unknown_option

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
    codes, sizes = as_array(codes), np.asarray(sizes)
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


SEED_LIMIT = 2**64
"""Seeds lie below it: torch takes no greater one."""


def as_whole_number(name: str, value: Any, least: int = 0, most: float = math.inf) -> int:
    """Return an integer after checking its type and range.

    Args:
        name: what it is, for the message.
        value: an ``int`` or a NumPy integer; a bool is none.
        least: smallest valid value.
        most: greatest valid value.

    Raises:
        InputError: another type, or out of range.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not least <= value <= most:
        span = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise InputError(f"{name} is {shown(value)}; pass an integer {span}")
    return int(value)


def as_seed(value: Any, name: str = "seed") -> int | None:
    """Return a seed, an integer from 0 to 2⁶⁴ − 1 or ``None``.

    Raises:
        InputError: something else.
    """
    if value is None:
        return None
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 0 <= value < SEED_LIMIT:
        raise InputError(f"{name} is {shown(value)}; pass an integer from 0 to 2**64 - 1, or None")
    return int(value)


def check_seeds(seeds: Any, name: str = "--seeds") -> list[int]:
    """Return a list of seeds, each an integer from 0 to 2⁶⁴ − 1.

    Raises:
        InputError: none, something else, or a seed twice.
    """
    if isinstance(seeds, (str, bytes)) or not isinstance(seeds, (Sequence, np.ndarray, range)) or len(seeds) == 0:
        raise InputError(f"{name} is {shown(seeds)}; give one or several integers from 0")
    checked = [as_seed(seed, name) for seed in seeds]
    if None in checked:
        raise InputError(f"{name}: None is not a seed; give integers from 0")
    if len(set(checked)) < len(checked):
        raise InputError(f"{name} {shown(list(seeds))} has a seed twice; give each once")
    return [int(seed) for seed in checked if seed is not None]


def as_number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """Return a finite real number after checking its type and range.

    Raises:
        InputError: another type, not finite, or out of range.
    """
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number) or not least <= number <= most:
        bounds = {(-math.inf, math.inf): "", (least, math.inf): f" of at least {least:g}"}
        span = bounds.get((least, most), f" from {least:g} to {most:g}")
        raise InputError(f"{name} is {shown(value)}; pass a finite number{span}")
    return number


def as_array(value: Any) -> np.ndarray:
    """Return an array of anything; what is no array, such as rows of different lengths, is one of objects."""
    try:
        return np.asarray(value)
    except Exception:  # rows of different lengths, or an object that refuses
        return np.empty(0, dtype=object)


def as_real_array(name: str, value: Any, remedy: str) -> np.ndarray:
    """Return a float64 array of real numbers.

    Args:
        name: what it is, for the message.
        value: numbers.
        remedy: what to pass instead.

    Raises:
        InputError: text, complex numbers, objects, or rows of different lengths.
    """
    array = as_array(value)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: {shown(value)} is not an array of real numbers; {remedy}")
    return array.astype(np.float64)


def prices_by_cluster(prices: Any, clusters: Sequence[str], name: str = "prices") -> np.ndarray:
    """Return prices (G,) of the clusters, currency per core-second.

    Args:
        prices: (G,) numbers in the order of ``clusters``, or a mapping from the name of each cluster to its price.
        clusters: names of the G clusters.
        name: what it is, for the message.

    Raises:
        InputError: an unknown or missing cluster, another shape, or prices that are negative or not finite.
    """
    remedy = f"give one number per cluster ({', '.join(clusters)}), finite and not negative"
    if isinstance(prices, Mapping):
        for cluster in prices:
            if cluster not in clusters:
                raise InputError(f"{name}: {unknown_option('cluster', cluster, clusters)}")
        for cluster in clusters:
            if cluster not in prices:
                raise InputError(f"{name}: cluster {cluster!r} has none; {remedy}")
        prices = [prices[cluster] for cluster in clusters]
    array = as_real_array(name, prices, remedy)
    if array.shape != (len(clusters),):
        raise InputError(f"{name} of shape {array.shape}; {remedy}")
    for cluster, price in zip(clusters, array, strict=True):
        if not math.isfinite(price) or price < 0:
            raise InputError(f"{name}: {price:g} for cluster {cluster!r}; {remedy}")
    return array
