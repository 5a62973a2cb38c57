"""Settings of a run that its folder and its checkpoints remember: limits, checkpoints, evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agents.policy.checkpoints import checkpoints_in, find_fault, iteration_of
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import read_json, write_json

SETTINGS = "run.json"
"""File with the settings, in the folder of a run and in each of its checkpoints."""
_REMEDY = "delete it and set the limits again"


@dataclass(frozen=True)
class RunSettings:
    """Settings with which a bare resume continues a run; the configuration is in the checkpoint itself."""

    stop: Mapping[str, float] = field(default_factory=dict)
    """Metric → limit."""
    checkpoint_freq: int = 0
    """Iterations between checkpoints; 0: only the last."""
    evaluate_freq: int = 0
    """Iterations between evaluations; 0: only after the last iteration, if at all."""
    keep: int | None = None
    """Number of newest checkpoints to keep; ``None``: all."""

    def replace(self, **given: Any) -> RunSettings:
        """Return the settings with those of ``given`` that are not ``None``."""
        return RunSettings(**{**asdict(self), **{k: v for k, v in given.items() if v is not None}})

    def write(self, folder: str | Path) -> None:
        """Write the settings into the folder of a run or a checkpoint, atomically."""
        write_json(Path(folder) / SETTINGS, asdict(self))


def remembered_settings(resume: str | Path) -> RunSettings:
    """Return the settings of a run.

    The folder of the run has the latest ones. A checkpoint that was copied away from its folder has those of the time
    at which it was written. Checkpoints of Tune and RLlib have none, which gives the defaults without a limit.

    Args:
        resume: folder of a run, or a checkpoint.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(resume).resolve()
    run_folder = path.parent if iteration_of(path) is not None else path
    checkpoints = [path] if run_folder != path else [p for p in checkpoints_in(path) if find_fault(p) is None][-1:]
    for folder in (run_folder, *checkpoints):
        file = folder / SETTINGS
        if file.is_file():
            return _read(file)
    return RunSettings()


def _read(file: Path) -> RunSettings:
    try:
        return RunSettings(**read_json(file, _REMEDY))
    except TypeError as error:
        raise InputError(f"{file}: damaged ({one_line(error, 120)}); {_REMEDY}") from None
