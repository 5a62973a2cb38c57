"""``marca train``: train an algorithm in an environment or on a request log; ``marca train file`` for several."""

from __future__ import annotations

import argparse
import glob
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from agents.policy.checkpoints import checkpoints_in, require_fresh
from benchmarks.training.console import announce, console, quiet_libraries, reporting, results_table, show_outcome
from benchmarks.training.trials import DEFAULT_ENV, Outcome, Trial, run_trial
from marca_env.utils.errors import InputError
from marca_env.utils.yaml import parse_mapping, read_mapping

HELP = "train an algorithm, online in an environment or from a request log"
DESCRIPTION = """\
Train an algorithm. Several experiments in one file: marca train file --help

  marca train --algo QMIX --config lr=5e-4 --stop training_iteration=80 --out results/qmix
  marca train --algo PPO --config share_parameters=true --stop episode_return_mean=0.05 --out results/ppo
  marca train --algo my_module.MyQMIX --env my_module.MyEnv --out results/mine
  marca train --resume results/qmix --stop training_iteration=200

--algo takes a preset (AWRQMixer, QMIX, VDN, ...), one of RLlib's algorithms (PPO, DQN, ...), or the dotted path of your
own Algorithm or AlgorithmConfig; --algo list shows all names. Returns are the team's, given whole to every agent.
Every number that the run reports goes to OUT/progress.csv, OUT/progress.jsonl and TensorBoard
(tensorboard --logdir OUT)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    what = parser.add_argument_group("what is trained")
    what.add_argument("--algo", metavar="NAME", help="algorithm (default: AWRQMixer)")
    what.add_argument("--env", metavar="ID", help=f"environment id or the dotted path of one (default: {DEFAULT_ENV})")
    what.add_argument(
        "--offline",
        type=Path,
        metavar="LOG",
        help="learn from this request log instead (.parquet, .csv, a folder, a pattern)",
    )
    what.add_argument("--scenario", help="preset or .yaml file of the log, or of the environment (default: default)")
    what.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the algorithm: key=value pairs, a .json or .yaml file, or a JSON object; env_config={...} "
        "goes to the environment, share_parameters=true gives agents one network (of equal spaces in a preset)",
    )
    what.add_argument("--seed", type=int, help="(default: 0)")
    run = parser.add_argument_group("how long, and what is kept")
    run.add_argument(
        "--stop",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=N",
        help="limits, of which the first that is reached ends the run: training_iteration, env_steps, gradient_steps, "
        "episode_return_mean, time_total_s, or any number that the run reports, such as "
        "env_runners/episode_return_mean (default: training_iteration=50)",
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="checkpoints and logs (default: results/train)")
    run.add_argument("--resume", type=Path, metavar="DIR", help="go on from this checkpoint or the newest of this run")
    run.add_argument(
        "--checkpoint-freq", type=int, default=0, metavar="N", help="iterations between them (0: the last)"
    )
    run.add_argument("--keep", type=int, metavar="N", help="newest checkpoints to keep (default: all)")
    run.add_argument(
        "--evaluate-freq", type=int, default=0, metavar="N", help="judge an offline run every N iterations"
    )
    run.add_argument("--wandb", metavar="PROJECT", help="also report to Weights & Biases")
    add_placement(parser)


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Options that say where the work is done."""
    where = parser.add_argument_group("where it runs")
    where.add_argument("--num-env-runners", type=int, metavar="N", help="processes that sample (default: 0, this one)")
    where.add_argument("--num-learners", type=int, metavar="N", help="processes that learn (default: 0, this one)")
    where.add_argument("--device", default="cpu", help="cpu or cuda, of the learners (default: %(default)s)")
    where.add_argument("--num-gpus-per-learner", type=float, metavar="N", help="GPUs of each learner")
    where.add_argument("--address", metavar="HOST:PORT", help="run on this Ray cluster (auto: the one of this machine)")


def run(args: argparse.Namespace) -> int:
    """Train, keeping the last checkpoint whatever ends the run; returns 130 after Ctrl-C."""

    if args.algo == "list":
        return _list_algorithms()
    trial = trial_of(args)
    _check(args, trial)
    out = args.out or (run_folder(args.resume) if args.resume else Path("results/train"))
    quiet_libraries()
    import_from_here()
    if args.address is not None:
        join_cluster(args.address)
    config = None
    if args.resume is None:
        require_fresh(out)
        config = trial.build()
    announce(trial, out, resume=args.resume)
    with reporting("training", trial.stop) as report:
        outcome = run_trial(
            trial, out, config=config, resume=args.resume, keep=args.keep, wandb=args.wandb, report=report
        )
    show_outcome(outcome, out)
    return _status(outcome, out)


def _list_algorithms() -> int:
    from agents.rllib import CONFIGS
    from agents.rllib.training.any_algorithm import ALGORITHMS

    rows = [{"name": n, "about": _first_sentence(c)} for n, c in CONFIGS.items()]
    rows += [{"name": n, "about": "RLlib's"} for n in sorted(ALGORITHMS) if n not in CONFIGS]
    console().print(results_table(rows, {"name": "--algo", "about": ""}))
    return 0


def _first_sentence(described: type) -> str:
    words = " ".join((described.__doc__ or "").split()).replace("``", "")
    return re.split(r"(?<!et al)\. |: |; ", words)[0].rstrip(".")


def _status(outcome: Outcome, out: Path) -> int:
    if not outcome.interrupted:
        return 0
    print(f"interrupted; go on with: marca train --resume {out}")
    return 130


def trial_of(args: argparse.Namespace) -> Trial:
    """The run that the command line describes.

    Raises:
        InputError: an argument that cannot be read.
    """
    given: dict[str, Any] = {}
    if args.stop:
        given["stop"] = parse_pairs(args.stop, "--stop")
    if args.algo is not None:
        given["run"] = args.algo
    if args.seed is not None:
        given["seed"] = args.seed
    options = {**parse_pairs(args.config, "--config"), **placement(args)}
    return Trial(
        env=args.env,
        offline=None if args.offline is None else str(args.offline),
        scenario=args.scenario,
        config=options,
        checkpoint_freq=args.checkpoint_freq,
        evaluate_freq=args.evaluate_freq,
        device=args.device,
        **given,
    )


def placement(args: argparse.Namespace) -> dict[str, Any]:
    """Options of :func:`add_placement` as options of the algorithm."""
    names = ("num_env_runners", "num_learners", "num_gpus_per_learner")
    found = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    for name, value in found.items():
        if value < 0:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must not be negative")
    return found


def parse_pairs(items: list[str], flag: str) -> dict[str, Any]:
    """Options from files, JSON objects and ``key=value`` pairs; later ones win.

    Raises:
        InputError: an item that is none of these, naming it.
    """

    found: dict[str, Any] = {}
    for item in items:
        if item.endswith((".json", ".yaml", ".yml")) and "=" not in item:
            found |= read_mapping(Path(item).expanduser())
        elif item.lstrip().startswith("{"):
            found |= parse_mapping(item, flag)
        elif "=" in item and item.partition("=")[0].strip():
            key, _, value = item.partition("=")
            found[key.strip()] = _value(value)
        else:
            raise InputError(f"{flag} {item!r}: give key=value, a JSON object, or a .json or .yaml file")
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        named: dict[str, Any] = {"true": True, "false": False, "none": None, "null": None}
        return named.get(text.strip().lower(), text)


def run_folder(path: Path) -> Path:
    """The run that ``--resume`` names: the folder, or that of the checkpoint."""

    inside = path.resolve().parent
    return inside if path.resolve() in checkpoints_in(inside) else path


def import_from_here() -> None:
    """Let dotted paths name modules of the current directory, here and in worker processes."""

    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != here]
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *others])


def join_cluster(address: str) -> None:
    """Connect to a running Ray cluster.

    Raises:
        InputError: not an address, or nothing answers there.
    """
    from agents.rllib.training.training import start_ray

    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and not (host and port.isdigit()):
        raise InputError(f"--address {address!r}: give host:port of the cluster's head, or auto")
    start_ray(address=address)


def _check(args: argparse.Namespace, trial: Trial) -> None:
    if args.offline is not None and not args.offline.exists() and not glob.has_magic(str(args.offline)):
        raise InputError(f"{args.offline}: no such file; --offline needs a request log")
    names = ("algo", "config", "offline", "env", "scenario", "seed", "num_env_runners", "num_learners")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) not in (None, [])]
    if args.resume is not None and given:
        raise InputError(f"--resume keeps the configuration of the checkpoint; leave {' and '.join(given)} out")
    if args.resume is not None and not args.resume.exists():
        raise InputError(f"{args.resume}: no such folder; --resume needs a checkpoint or the folder of a run")
    if args.keep is not None and args.keep < 1:
        raise InputError(f"--keep is {args.keep}; keep at least one checkpoint")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise InputError(f"--out {args.out}: a file; give a folder")
    if args.evaluate_freq and args.resume is None and trial.offline is None:
        raise InputError("--evaluate-freq judges offline runs; give --offline LOG too, or leave it out")
    from agents.rllib.training.results import check_stop

    check_stop(trial.stop, None, evaluates=trial.offline is not None or args.resume is not None)
