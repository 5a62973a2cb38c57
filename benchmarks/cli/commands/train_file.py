"""``marca train file``: train the experiments of a YAML file, one after another or side by side."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from agents.policy.checkpoints import checkpoints_in
from benchmarks.cli.arguments import (
    TRUST_HELP,
    check_output_folder,
    confirm_trust,
    join_cluster,
    make_current_folder_importable,
)
from benchmarks.training.console import results_table, silence_libraries
from benchmarks.training.experiment_files import ExperimentEntry, read_experiments
from benchmarks.training.experiment_runs import (
    DONE,
    FAILED,
    INTERRUPTED,
    WAITING,
    recorded_row,
    train_entry,
    unfinished_entries,
)
from marca_env.utils.console import make_console
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.files import lock_output

DESCRIPTION = """\
Train the experiments of a YAML file, {name: {run, env, stop, config}}:

  two_games:
    run: QMIX                    # a preset, an algorithm of RLlib, or a dotted path
    env: benchmarks.experiments.games.matrix_games.TwoStepGame
    stop: {training_iteration: 50}
    config: {lr: {grid_search: [0.001, 0.0005]}, gru: null}
    num_samples: 3               # seeds

More fields: seed, scenario, offline (a request log), checkpoint_freq, evaluate_freq, device. All experiments are
checked before the first one begins; one that fails does not stop the others. Each has a folder in --out; --resume
continues an interrupted call and skips what is done."""
COLUMNS = {
    "name": "experiment",
    "status": "status",
    "training_iteration": "iterations",
    "env_steps": "env steps",
    "episode_return_mean": "return",
    "team_reward": "return is",
    "loss": "loss",
    "skipped_updates": "skipped updates",
    "seconds": "seconds",
    "error": "error",
}
POLL_SECONDS = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = DESCRIPTION
    parser.add_argument("file", type=Path, metavar="FILE.yaml", help="experiments")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the runs (default: results/ and FILE's name)"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="experiments to train (default: all)")
    parser.add_argument("--resume", action="store_true", help="continue with what is not done")
    parser.add_argument("--trust", action="store_true", help=f"with --resume: {TRUST_HELP}")
    parser.add_argument(
        "--concurrent",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time, each in its own process (default: %(default)s)",
    )
    parser.add_argument("--keep", type=int, metavar="N", help="newest checkpoints of each run to keep (default: all)")
    parser.add_argument("--wandb", metavar="PROJECT", help="also report to this project of Weights & Biases")
    parser.add_argument("--address", metavar="HOST:PORT", help="run on this Ray cluster")
    parser.add_argument("--entry", help=argparse.SUPPRESS)  # one run by its full name: what --concurrent starts


def run(args: argparse.Namespace) -> int:
    """Check all experiments, train them, print a table; return 1 if one failed, 130 after Ctrl-C."""
    _check(args)
    entries = _select(read_experiments(args.file), args)
    out = args.out or Path("results") / args.file.stem
    with nullcontext() if args.entry is not None else lock_output(out):  # the call that starts --entry has the lock
        return _run(entries, out, args)


def _run(entries: list[ExperimentEntry], out: Path, args: argparse.Namespace) -> int:
    unfinished = unfinished_entries(entries, out, resume=args.resume)
    silence_libraries()
    args.trust = args.trust or _confirm_trust(unfinished, out, args)
    make_current_folder_importable()
    if args.address is not None:
        join_cluster(args.address)
    if args.entry is not None:
        return _status(_train_in_turn(unfinished, out, args, {}))
    configs = _build_configs(unfinished, args.file)
    if unfinished and args.address is None:
        _start_ray_for(list(configs.values()))
    print(f"{args.file}: {len(unfinished)} of {len(entries)} runs to do; in {out}", flush=True)
    if args.concurrent > 1:
        rows = _train_side_by_side(unfinished, out, args)
    else:
        rows = _train_in_turn(unfinished, out, args, configs)
    new = {row["name"]: row for row in rows}
    table = [new.get(entry.name) or recorded_row(entry, out) for entry in entries]
    make_console().print(results_table(table, COLUMNS))
    if any(row["status"] != DONE for row in table):
        print(f"continue with: marca train file {args.file} --out {out} --resume")
    return _status(table)


def _confirm_trust(entries: list[ExperimentEntry], out: Path, args: argparse.Namespace) -> bool:
    """Ask once whether checkpoints of others are trusted; the user's own need no trust."""
    folders = [out / entry.name for entry in entries if args.resume and checkpoints_in(out / entry.name)]
    return any(confirm_trust(folder) for folder in folders)


def _check(args: argparse.Namespace) -> None:
    for name in ("concurrent", "keep"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}; give at least one")
    check_output_folder(args.out)


def _select(entries: list[ExperimentEntry], args: argparse.Namespace) -> list[ExperimentEntry]:
    if args.entry is not None:
        return [entry for entry in entries if entry.name == args.entry]
    names = list(dict.fromkeys(entry.experiment for entry in entries))
    for name in args.only:
        if name not in names:
            raise InputError(f"{args.file}: --only: {unknown_option('experiment', name, names)}")
    return [entry for entry in entries if not args.only or entry.experiment in args.only]


def _build_configs(entries: list[ExperimentEntry], file: Path) -> dict[str, Any]:
    """Build the configuration of every run, so that a fault in the last one is found before the first is trained."""
    from agents.rllib.training.stopping import check_stop

    configs = {}
    for entry in entries:
        try:
            configs[entry.name] = entry.trial.build()
            check_stop(entry.trial.stop, configs[entry.name], evaluates=entry.trial.offline is not None)
        except InputError as error:
            raise InputError(f"{file}: experiment {entry.experiment!r}: {error}") from None
    return configs


def _start_ray_for(configs: list[Any]) -> None:
    from agents.rllib.core.cluster import start_ray_for

    start_ray_for(*configs)


def _train_in_turn(
    entries: list[ExperimentEntry], out: Path, args: argparse.Namespace, configs: dict[str, Any]
) -> list[dict[str, Any]]:
    rows = []
    for entry in entries:
        config = configs.get(entry.name)
        options = {"resume": args.resume, "keep": args.keep, "wandb": args.wandb, "trust": args.trust}
        rows.append(train_entry(entry, out / entry.name, config=config, **options))
        if rows[-1]["status"] == INTERRUPTED:
            break
    return rows


def _train_side_by_side(entries: list[ExperimentEntry], out: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train each run in its own process with its own ray, or on the cluster; Ctrl-C reaches all of them."""
    command = [sys.executable, "-m", "benchmarks.cli", "train", "file", str(args.file), "--out", str(out)]
    for name in ("keep", "wandb", "address"):
        if getattr(args, name) is not None:
            command += [f"--{name}", str(getattr(args, name))]
    command += ["--resume"] * args.resume + ["--trust"] * args.trust
    queue = list(entries)
    running: list[subprocess.Popen[bytes]] = []
    try:
        while queue or running:
            while queue and len(running) < args.concurrent:
                running.append(subprocess.Popen([*command, "--entry", queue.pop(0).name]))
            running = [process for process in running if process.poll() is None]
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        for process in running:  # they got the signal, too, and save a checkpoint
            process.wait()
    return [recorded_row(entry, out) for entry in entries]


def _status(rows: list[dict[str, Any]]) -> int:
    statuses = {row["status"] for row in rows}
    return 130 if statuses & {INTERRUPTED, WAITING} else int(FAILED in statuses)
