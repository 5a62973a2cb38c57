"""Checkpoints of algorithms: written whole, checked before they are read, restored to the last bit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.checkpoints import Checkpointable

from agents.policy.checkpoints import (
    MANIFEST,
    checkpoint_name,
    checkpoints_in,
    fault_of,
    iteration_of,
    keep_newest,
    newest_checkpoint,
    remove_leftovers,
    writing_checkpoint,
)
from agents.rllib.core.cluster import start_ray
from marca_env.utils.errors import InputError, one_line

NUMBERS = "numbers.json"
"""File of a checkpoint: what the iteration reported."""


def save_checkpoint(
    algorithm: Any, out: Path, numbers: Mapping[str, Any] | None = None, *, keep: int | None = None
) -> Path:
    """Write ``out/checkpoint_<iteration>``, whole or not at all; returns it.

    Args:
        numbers: all of the iteration's, from which a resumed run tells whether it is at its end.
        keep: newest checkpoints to leave in ``out``; ``None``: all.
    """
    iteration = int(algorithm.iteration)
    told = {k: v for k, v in (numbers or {}).items() if k != "interrupted"}
    with writing_checkpoint(out, iteration) as part:
        algorithm.save_to_path(str(part))
        (part / NUMBERS).write_text(json.dumps(told), encoding="utf-8")
    if keep is not None:
        keep_newest(out, keep)
    return out.resolve() / checkpoint_name(iteration)


def latest_checkpoint(path: str | Path) -> Path:
    """The checkpoint at ``path``, or the newest whole one in that folder; torn ones after it are named in a warning.

    One without a manifest, as Tune and RLlib write them, is taken unchecked, but only where ``path`` is the
    checkpoint itself.

    Raises:
        InputError: there is none, the one at ``path`` is torn, or none in the folder is whole.
    """
    path = Path(path).resolve()
    sealed = (path / MANIFEST).is_file()
    if sealed or (path / "rllib_checkpoint.json").is_file() or (path / "algorithm_state.pkl").is_file():
        fault = fault_of(path) if sealed else None
        if fault is not None:
            raise InputError(f"{path}: torn, {fault}; use an earlier one, or give the folder {path.parent} to find it")
        return path
    return newest_checkpoint(path)


def restore(path: str | Path) -> Any:
    """The algorithm of a checkpoint: networks, targets, optimizer, counters, replay buffer and random state.

    Raises:
        InputError: no checkpoint, or one that is torn.
    """

    found = latest_checkpoint(path)
    start_ray()
    _require_readable(found)
    try:
        return Algorithm.from_checkpoint(str(found))
    except InputError:
        raise
    except (EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(f"{found}: cannot be restored ({one_line(error)[:300]}); use an earlier one") from error


def _require_readable(checkpoint: Path) -> None:
    """RLlib passes over the error of a class that cannot be imported, and fails later without the reason."""
    try:
        with (checkpoint / Checkpointable.CLASS_AND_CTOR_ARGS_FILE_NAME).open("rb") as handle:
            pickle.load(handle)
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, AttributeError, ImportError, TypeError) as error:
        raise InputError(
            f"{checkpoint}: its algorithm or environment cannot be loaded ({one_line(error)[:300]}); "
            "have the code that it was trained with importable"
        ) from error


def resumed(resume: str | Path, out: str | Path | None) -> tuple[Any, dict[str, Any], Path]:
    """The algorithm of a checkpoint, the numbers that it was saved with, and the checkpoint.

    Args:
        resume: checkpoint, or folder of a run.
        out: where the run will go on writing.

    Raises:
        InputError: as :func:`restore`; or ``out`` holds a newer checkpoint, of which the run would not be the past.
    """
    found = latest_checkpoint(resume)
    if out is not None:
        at = iteration_of(found) or 0
        newer = [p for p in checkpoints_in(out) if (iteration_of(p) or 0) > at and fault_of(p) is None]
        if newer:
            raise InputError(
                f"{newer[-1]}: newer than {found.name}, which is to be resumed, and would be taken for its successor; "
                "resume the newest, or give another folder for the checkpoints"
            )
        remove_leftovers(out)
    algorithm = restore(found)
    try:
        return algorithm, json.loads((found / NUMBERS).read_text(encoding="utf-8")), found
    except (OSError, ValueError):
        return algorithm, {}, found  # Tune and RLlib write none
