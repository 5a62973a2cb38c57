"""Checks of memory before it is allocated."""

from __future__ import annotations

import psutil

from marca_env.utils.errors import InputError


def check_memory(what: str, option: str, count: int, bytes_each: float, spare: float = 0.0) -> None:
    """Refuse arrays that do not fit into the free memory.

    Args:
        what: what is to be stored, for the message.
        option: option that sets ``count``.
        count: number of episodes.
        bytes_each: bytes of an episode.
        spare: more bytes per episode that are needed for a moment, for instance to copy a part.

    Raises:
        InputError: the message names the option and a value that fits.
    """
    free = psutil.virtual_memory().available
    if count * (bytes_each + spare) <= free:
        return
    fits = int(free / (bytes_each + spare))
    head = f"{what} of {option} = {count:,} episodes takes {_size(count * bytes_each)} ({_size(bytes_each)} each)"
    remedy = f"set {option} to {_rounded_down(fits):,} or less" if fits else "use smaller observations or episodes"
    raise InputError(f"{head}, but {_size(free)} of memory are free; {remedy}")


def _rounded_down(count: int) -> int:
    """Return a number of at most two digits followed by zeros."""
    power = 10 ** max(0, len(str(count)) - 2)
    return count // power * power


def _size(n_bytes: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.3g} {unit}" if n_bytes < 1000 else f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:,.1f} TiB"
