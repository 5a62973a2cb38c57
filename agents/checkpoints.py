"""The folders that a training run leaves; needs no ray."""

from __future__ import annotations

from pathlib import Path

from marca_env.errors import InputError

_PREFIX = "checkpoint_"


def checkpoint_name(iteration: int) -> str:
    """``checkpoint_000050``."""
    return f"{_PREFIX}{iteration:06d}"


def checkpoints_in(folder: str | Path) -> list[Path]:
    """The checkpoints of a run, oldest first; none if there is no such folder."""
    found = [p for p in Path(folder).glob(f"{_PREFIX}*") if p.is_dir() and p.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=lambda p: int(p.name.removeprefix(_PREFIX)))


def require_fresh(folder: str | Path) -> None:
    """Refuse a folder with checkpoints: those of another run would be taken for the newest of this one.

    Raises:
        InputError: there are some.
    """
    found = checkpoints_in(folder)
    if found:
        raise InputError(f"{found[-1]}: left by an earlier run; resume it, or give another folder (or remove it)")
