"""Checks of memory before it is allocated."""

from __future__ import annotations

from pathlib import Path

import psutil

from marca_env.utils.errors import InputError

CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux states the memory of a container."""


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
    free = free_memory()
    if count * (bytes_each + spare) <= free:
        return
    fits = int(free / (bytes_each + spare))
    head = f"{what} of {option} = {count:,} episodes takes {_size(count * bytes_each)} ({_size(bytes_each)} each)"
    remedy = f"set {option} to {_rounded_down(fits):,} or less" if fits else "use smaller observations or episodes"
    raise InputError(f"{head}, but {_size(free)} of memory are free; {remedy}")


def free_memory() -> int:
    """Return the free bytes of the machine, or of the container if it may use less."""
    free = psutil.virtual_memory().available
    try:
        limit, used = (int((CONTAINER / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, or no limit: "max"
        return free
    return max(0, min(free, limit - used))


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
