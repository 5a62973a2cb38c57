"""Checkpoints of algorithms: written atomically, verified before reading, restored exactly.

RLlib's checkpoints contain pickles: whoever loads one executes the code of its author. Only checkpoints that this user
wrote are loaded without being asked (:mod:`agents.policy.trust`).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.checkpoints import Checkpointable

from agents.policy.checkpoints import (
    checkpoint_name,
    checkpoints_in,
    find_fault,
    iteration_of,
    keep_newest,
    newest_checkpoint,
    remove_leftovers,
    writing_checkpoint,
)
from agents.policy.trust import MANIFEST, is_own
from agents.rllib.core.cluster import check_resources, start_ray_for
from agents.rllib.training.placement import place
from agents.rllib.training.run_settings import RunSettings
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import read_json

NUMBERS = "numbers.json"
"""File of a checkpoint with the metrics of the iteration."""


def save_checkpoint(
    algorithm: Any,
    out: Path,
    numbers: Mapping[str, Any] | None = None,
    *,
    keep: int | None = None,
    settings: RunSettings | None = None,
) -> Path:
    """Write ``out/checkpoint_<iteration>`` atomically and return it.

    Args:
        algorithm: the algorithm to save.
        out: folder of the run's checkpoints.
        numbers: all metrics of the iteration; a resumed run checks its stopping criteria with them.
        keep: number of newest checkpoints to keep in ``out``; ``None``: all.
        settings: settings of the run, with which a bare resume continues.
    """
    iteration = int(algorithm.iteration)
    metrics = {k: v for k, v in (numbers or {}).items() if k != "interrupted"}
    with writing_checkpoint(out, iteration) as part:
        algorithm.save_to_path(str(part))
        (part / NUMBERS).write_text(json.dumps(metrics), encoding="utf-8")
        if settings is not None:
            settings.write(part)
    if keep is not None:
        keep_newest(out, keep)
    return out.resolve() / checkpoint_name(iteration)


def latest_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint at ``path``, or the newest intact one in that folder.

    A warning names newer damaged checkpoints in the folder. A checkpoint without a manifest, as Tune and RLlib write
    them, is accepted unverified, but only if ``path`` is the checkpoint itself.

    Raises:
        InputError: no checkpoint, a damaged one at ``path``, or only damaged ones in the folder.
    """
    path = Path(path).resolve()
    sealed = (path / MANIFEST).is_file()
    if sealed or (path / "rllib_checkpoint.json").is_file() or (path / "algorithm_state.pkl").is_file():
        fault = find_fault(path) if sealed else None
        if fault is not None:
            raise InputError(
                f"{path}: damaged, {fault}; use an earlier checkpoint, or pass the folder {path.parent} to find one"
            )
        return path
    return newest_checkpoint(path)


def saved_metrics(path: str | Path) -> dict[str, Any]:
    """Return the metrics saved with a checkpoint, or with the newest intact one of a run; empty if there are none."""
    try:
        metrics = read_json(latest_checkpoint(path) / NUMBERS)
    except InputError:
        return {}  # checkpoints of Tune and RLlib have no such file
    return metrics if isinstance(metrics, dict) else {}


def require_trust(checkpoint: str | Path, *, trust: bool) -> None:
    """Refuse to load the pickles of a checkpoint, unless this user wrote all of it or the caller trusts it.

    Raises:
        InputError: somebody else may have written it; the message says what to do.
    """
    if not trust and not (is_own(checkpoint) and find_fault(checkpoint) is None):
        raise InputError(
            f"{checkpoint}: not signed with your key, so somebody else may have written it; loading it executes the "
            "code in its pickles. If you trust its author, pass --trust (in Python: trust=True)"
        )


def saved_config(checkpoint: str | Path, *, trust: bool = False) -> Any:
    """Return the configuration in a checkpoint; this executes the code in its pickles.

    Args:
        checkpoint: the checkpoint.
        trust: read it even if this user did not write it.

    Raises:
        InputError: the checkpoint may be somebody else's, the configuration cannot be read, or its code cannot be
            imported.
    """
    require_trust(checkpoint, trust=trust)
    return _read_config(Path(checkpoint))


def _read_config(checkpoint: Path) -> Any:
    try:
        with (checkpoint / Checkpointable.CLASS_AND_CTOR_ARGS_FILE_NAME).open("rb") as file:
            args, kwargs = pickle.load(file)["ctor_args_and_kwargs"]
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{checkpoint}: cannot be read ({one_line(error, 300)}); use an earlier checkpoint") from None
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{checkpoint}: its algorithm or environment cannot be loaded ({one_line(error, 300)}); "
            "make the code of the training importable, for example by running in the same directory"
        ) from error
    config = kwargs.get("config", args[0] if args else None)
    config = AlgorithmConfig.from_state(config) if isinstance(config, dict) else config
    return config.copy(copy_frozen=False)


@checked_arguments
def restore(path: str | Path, placement: Mapping[str, Any] | None = None, *, trust: bool = False) -> Any:
    """Restore an algorithm: networks, targets, optimizer, counters, replay buffer and random state.

    Args:
        path: checkpoint, or folder of a run.
        placement: other numbers of processes or GPUs, see :func:`agents.rllib.training.placement.place`.
        trust: load it even if this user did not write it; loading executes the code in its pickles.

    Raises:
        InputError: no checkpoint, a damaged one, one that may be somebody else's, or a placement that this machine
            cannot serve.
    """
    checkpoint = latest_checkpoint(path)
    require_trust(checkpoint, trust=trust)
    config = place(_read_config(checkpoint), placement or {})
    start_ray_for(config)
    check_resources(config)
    try:
        return Algorithm.from_checkpoint(str(checkpoint), config=config)
    except InputError:
        raise
    except (EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{checkpoint}: cannot be restored ({one_line(error, 300)}); use an earlier checkpoint"
        ) from error


def restore_run(
    resume: str | Path,
    out: str | Path | None,
    placement: Mapping[str, Any] | None = None,
    *,
    trust: bool = False,
) -> tuple[Any, dict[str, Any], Path]:
    """Restore a run: return its algorithm, the metrics saved with it, and the checkpoint.

    Args:
        resume: checkpoint, or folder of a run.
        out: folder in which the run will write its checkpoints.
        placement: as in :func:`restore`.
        trust: as in :func:`restore`.

    Raises:
        InputError: as :func:`restore`, or ``out`` contains a newer checkpoint.
    """
    checkpoint = latest_checkpoint(resume)
    if out is not None:
        iteration = iteration_of(checkpoint) or 0
        newer = [p for p in checkpoints_in(out) if (iteration_of(p) or 0) > iteration and find_fault(p) is None]
        if newer:
            raise InputError(
                f"{newer[-1]}: newer than {checkpoint.name}, from which you resume; resume from {newer[-1].name}, or "
                "choose another folder for the checkpoints"
            )
        remove_leftovers(out)
    return restore(checkpoint, placement, trust=trust), saved_metrics(checkpoint), checkpoint
