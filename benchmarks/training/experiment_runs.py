"""Runs of an experiment file: each trains into its own folder and leaves ``result.json`` there."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import Any

from agents.policy.checkpoints import checkpoints_in, require_no_checkpoints
from benchmarks.training.console import show_progress
from benchmarks.training.experiment_files import ExperimentEntry
from benchmarks.training.trials import run_trial
from marca_env.utils.errors import InputError, SystemFaultError, one_line
from marca_env.utils.files import lock_output, read_json, write_json

RESULT = "result.json"
DONE, FAILED, INTERRUPTED, WAITING = "done", "failed", "interrupted", "waiting"


def train_entry(
    entry: ExperimentEntry,
    folder: Path,
    *,
    config: Any = None,
    resume: bool = False,
    keep: int | None,
    wandb: str | None,
    trust: bool = False,
) -> dict[str, Any]:
    """Train one run and return its row of the table; a failure is a row, too.

    Args:
        entry: the run.
        folder: of the run.
        config: of the run, if it is built already.
        resume: continue from the newest checkpoint in ``folder``, if there is one.
        keep: newest checkpoints to keep; ``None``: all.
        wandb: project of Weights & Biases to report to.
        trust: continue from a checkpoint that this user did not write.
    """
    with lock_output(folder):
        return _train_entry(entry, folder, config=config, resume=resume, keep=keep, wandb=wandb, trust=trust)


def _train_entry(entry: ExperimentEntry, folder: Path, *, resume: bool, **options: Any) -> dict[str, Any]:
    began = time.monotonic()
    checkpoint = folder if resume and checkpoints_in(folder) else None
    row: dict[str, Any] = {"name": entry.name, "status": DONE}
    write_json(folder / RESULT, {"status": INTERRUPTED, "numbers": {}, "trial": entry.trial.to_dict()})
    numbers: dict[str, Any] = {}
    try:
        with show_progress(entry.name, entry.trial.stop) as report:
            outcome = run_trial(entry.trial, folder, resume=checkpoint, report=report, **options)
        numbers = dict(outcome.numbers)
        if outcome.interrupted:
            row["status"] = INTERRUPTED
    except KeyboardInterrupt:
        row["status"] = INTERRUPTED
    except SystemFaultError:  # the other runs would meet it, too
        raise
    except Exception as error:  # the other runs go on
        row |= {"status": FAILED, "error": f"{type(error).__name__}: {one_line(error, 200)}"}
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        print(f"{entry.name}: {row['error']} (traceback in {folder / 'error.txt'})", file=sys.stderr)
    else:
        (folder / "error.txt").unlink(missing_ok=True)
    row["seconds"] = round(time.monotonic() - began, 1)
    write_json(folder / RESULT, {**row, "numbers": numbers, "trial": entry.trial.to_dict()})
    return {**numbers, **row}


def unfinished_entries(entries: list[ExperimentEntry], out: Path, *, resume: bool) -> list[ExperimentEntry]:
    """Return the runs that are not done.

    Raises:
        InputError: an earlier call left something and ``resume`` is not set, or the configuration has changed since.
    """
    unfinished = []
    for entry in entries:
        folder = out / entry.name
        result = read_result(folder)
        if not resume:
            require_no_checkpoints(folder)
            if result is not None:
                raise InputError(f"{folder}: left by an earlier run; pass --resume, or give another --out")
        elif result is not None:
            _check_unchanged(entry, result, folder)
            if result["status"] == DONE and result["trial"]["stop"] == dict(entry.trial.stop):
                continue
        unfinished.append(entry)
    return unfinished


def _check_unchanged(entry: ExperimentEntry, result: dict[str, Any], folder: Path) -> None:
    trial, recorded = entry.trial.to_dict(), result["trial"]
    for name in ("run", "env", "offline", "scenario", "config", "seed"):
        if trial[name] != recorded.get(name):
            raise InputError(
                f"{folder}: {name} was {recorded.get(name)!r} and is {trial[name]!r} now; "
                "a resumed run keeps its configuration: give another --out, or change it back"
            )


def read_result(folder: Path) -> dict[str, Any] | None:
    """Read the result of a run; ``None`` if the run never began.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        result = read_json(path, "remove the folder to run it again")
        return {"status": result["status"], "trial": dict(result["trial"]), **result}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({one_line(error, 200)}); remove the folder to run it again") from None


def recorded_row(entry: ExperimentEntry, out: Path) -> dict[str, Any]:
    """Return the row of a run that another process or call has made."""
    result = read_result(out / entry.name)
    if result is None:
        return {"name": entry.name, "status": WAITING}
    optional = {name: result[name] for name in ("seconds", "error") if name in result}
    return {**result["numbers"], "name": entry.name, "status": result["status"], **optional}
