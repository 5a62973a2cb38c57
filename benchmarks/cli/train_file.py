"""``marca train file``: the experiments of a YAML file, one after another or side by side."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.policy.checkpoints import checkpoints_in, require_fresh
from benchmarks.cli.train import import_from_here, join_cluster
from benchmarks.training.console import console, quiet_libraries, reporting, results_table
from benchmarks.training.experiment_files import Entry, read_experiments
from benchmarks.training.trials import run_trial
from marca_env.utils.errors import InputError, one_line, unknown_option
from marca_env.utils.files import write_json

HELP = "train the experiments of a YAML file"
DESCRIPTION = """\
Train the experiments of a YAML file, {name: {run, env, stop, config}}:

  two_games:
    run: QMIX                    # a preset, one of RLlib's algorithms, or a dotted path
    env: benchmarks.experiments.games.matrix_games.TwoStepGame
    stop: {training_iteration: 50}
    config: {lr: {grid_search: [0.001, 0.0005]}, gru: null}
    num_samples: 3               # seeds

Also: seed, scenario, offline (a request log), checkpoint_freq, evaluate_freq, device. All are checked before the first
begins; one that fails does not stop the others. Each has a folder in --out; --resume goes on where an interrupted call
stopped and leaves alone what is done."""
RESULT = "result.json"
DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"
COLUMNS = {
    "name": "experiment",
    "status": "status",
    "training_iteration": "iterations",
    "env_steps": "env steps",
    "episode_return_mean": "return",
    "loss": "loss",
    "seconds": "seconds",
    "error": "error",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    parser.add_argument("file", type=Path, metavar="FILE.yaml")
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: results/ and the file's name)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="some of the experiments")
    parser.add_argument("--resume", action="store_true", help="go on with what is not done")
    parser.add_argument("--concurrent", type=int, default=1, metavar="N", help="runs side by side, each in a process")
    parser.add_argument("--keep", type=int, metavar="N", help="newest checkpoints of each to keep (default: all)")
    parser.add_argument("--wandb", metavar="PROJECT", help="also report to Weights & Biases")
    parser.add_argument("--address", metavar="HOST:PORT", help="run on this Ray cluster")
    parser.add_argument("--entry", help=argparse.SUPPRESS)  # one run by its full name: what --concurrent starts


def run(args: argparse.Namespace) -> int:
    """Check all, train all, print a table; 1 if one failed, 130 after Ctrl-C."""

    _check(args)
    entries = _chosen(read_experiments(args.file), args)
    out = args.out or Path("results") / args.file.stem
    waiting = _waiting(entries, out, args)
    quiet_libraries()
    import_from_here()
    if args.address is not None:
        join_cluster(args.address)
    if args.entry is not None:
        return _status([_train(waiting[0], out, args)] if waiting else [])
    configs = _checked(waiting, args.file)
    if waiting and args.address is None:
        _start_ray_for(list(configs.values()))
    print(f"{args.file}: {len(waiting)} of {len(entries)} runs to do; in {out}", flush=True)
    if args.concurrent > 1:
        rows = _side_by_side(waiting, out, args)
    else:
        rows = _one_by_one(waiting, lambda entry: _train(entry, out, args, configs[entry.name]))
    known = {row["name"]: row for row in rows}
    table = [known.get(e.name) or _kept(e, out) for e in entries]
    console().print(results_table(table, COLUMNS))
    if any(row["status"] != DONE for row in table):
        print(f"go on with: marca train file {args.file} --out {out} --resume")
    return _status(table)


def _check(args: argparse.Namespace) -> None:
    for name in ("concurrent", "keep"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}; give at least one")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise InputError(f"--out {args.out}: a file; give a folder")


def _chosen(entries: list[Entry], args: argparse.Namespace) -> list[Entry]:
    if args.entry is not None:
        return [e for e in entries if e.name == args.entry]
    known = list(dict.fromkeys(e.experiment for e in entries))
    for name in args.only:
        if name not in known:
            raise InputError(f"{args.file}: --only: {unknown_option('experiment', name, known)}")
    return [e for e in entries if not args.only or e.experiment in args.only]


def _waiting(entries: list[Entry], out: Path, args: argparse.Namespace) -> list[Entry]:
    """Those that are not done; nothing of an earlier call is overwritten unless it is resumed as it was."""

    found = []
    for entry in entries:
        folder = out / entry.name
        result = read_result(folder)
        if not args.resume:
            require_fresh(folder)
            if result is not None:
                raise InputError(f"{folder}: left by an earlier run; pass --resume, or give another --out")
        elif result is not None:
            _check_unchanged(entry, result, folder)
            if result["status"] == DONE and result["trial"]["stop"] == dict(entry.trial.stop):
                continue
        found.append(entry)
    return found


def _check_unchanged(entry: Entry, result: dict[str, Any], folder: Path) -> None:
    now = entry.trial.to_dict()
    for name in ("run", "env", "offline", "scenario", "config", "seed"):
        if now[name] != result["trial"].get(name):
            raise InputError(
                f"{folder}: {name} was {result['trial'].get(name)!r} and is {now[name]!r} now; "
                "a resumed run keeps its configuration: give another --out, or change it back"
            )


def _checked(entries: list[Entry], file: Path) -> dict[str, Any]:
    """The configurations of all, so that a fault in the last one is found before the first is trained."""
    from agents.rllib.training.results import check_stop

    configs = {}
    for entry in entries:
        try:
            configs[entry.name] = entry.trial.build()
            check_stop(entry.trial.stop, configs[entry.name], evaluates=entry.trial.offline is not None)
        except InputError as error:
            raise InputError(f"{file}: experiment {entry.experiment!r}: {error}") from None
    return configs


def _start_ray_for(configs: list[Any]) -> None:
    from agents.rllib.training.training import start_ray

    start_ray(None if any(c.num_env_runners or c.num_learners for c in configs) else 1)


def _one_by_one(entries: list[Entry], train: Callable[[Entry], dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for entry in entries:
        rows.append(train(entry))
        if rows[-1]["status"] == INTERRUPTED:
            break
    return rows


def _train(entry: Entry, out: Path, args: argparse.Namespace, config: Any = None) -> dict[str, Any]:
    """One run, whatever happens to it; its result is kept beside its checkpoints."""

    folder, began = out / entry.name, time.monotonic()
    resume = folder if args.resume and checkpoints_in(folder) else None
    row: dict[str, Any] = {"name": entry.name, "status": DONE}
    write_json(folder / RESULT, {"status": INTERRUPTED, "numbers": {}, "trial": entry.trial.to_dict()})
    numbers: dict[str, Any] = {}
    try:
        with reporting(entry.name, entry.trial.stop) as report:
            outcome = run_trial(
                entry.trial, folder, config=config, resume=resume, keep=args.keep, wandb=args.wandb, report=report
            )
        numbers = dict(outcome.numbers)
        if outcome.interrupted:
            row["status"] = INTERRUPTED
    except KeyboardInterrupt:
        row["status"] = INTERRUPTED
    except Exception as error:  # the other experiments go on
        row |= {"status": FAILED, "error": f"{type(error).__name__}: {one_line(error)[:200]}"}
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        print(f"{entry.name}: {row['error']} (all of it in {folder / 'error.txt'})", file=sys.stderr)
    else:
        (folder / "error.txt").unlink(missing_ok=True)
    row["seconds"] = round(time.monotonic() - began, 1)
    write_json(folder / RESULT, {**row, "numbers": numbers, "trial": entry.trial.to_dict()})
    return {**numbers, **row}


def _side_by_side(entries: list[Entry], out: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Each run in its own process with its own ray, or on the cluster; Ctrl-C reaches all of them."""
    command = [sys.executable, "-m", "benchmarks.cli.main", "train", "file", str(args.file), "--out", str(out)]
    for name in ("keep", "wandb", "address"):
        if getattr(args, name) is not None:
            command += [f"--{name}", str(getattr(args, name))]
    command += ["--resume"] * args.resume
    queue = list(entries)
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while queue or running:
            while queue and len(running) < args.concurrent:
                entry = queue.pop(0)
                running[entry.name] = subprocess.Popen([*command, "--entry", entry.name])
            running = {name: process for name, process in running.items() if process.poll() is None}
            time.sleep(0.2)
    except KeyboardInterrupt:
        for process in running.values():  # they have had the signal, too, and keep a checkpoint
            process.wait()
    return [_kept(entry, out) for entry in entries]


def read_result(folder: Path) -> dict[str, Any] | None:
    """What a run of an experiment file left; ``None`` if it never began.

    Raises:
        InputError: the file is damaged.
    """

    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"status": found["status"], "trial": dict(found["trial"]), **found}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({one_line(error)}); remove the folder to run it again") from None


def _kept(entry: Entry, out: Path) -> dict[str, Any]:
    """The row of a run that was not made by this process."""
    result = read_result(out / entry.name)
    if result is None:
        return {"name": entry.name, "status": "waiting"}
    shown = {k: result[k] for k in ("seconds", "error") if k in result}
    return {**result["numbers"], "name": entry.name, "status": result["status"], **shown}


def _status(rows: list[dict[str, Any]]) -> int:
    kinds = {row["status"] for row in rows}
    return 130 if INTERRUPTED in kinds or "waiting" in kinds else int(FAILED in kinds)
