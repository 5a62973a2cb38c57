"""``marca train``: train an algorithm in an environment or on a request log."""

from __future__ import annotations

import argparse
import glob
import re
import shlex
from pathlib import Path
from typing import Any

from agents.policy.checkpoints import checkpoints_in, require_no_checkpoints
from benchmarks.cli.arguments import (
    TRUST_HELP,
    check_output_folder,
    confirm_trust,
    join_cluster,
    make_current_folder_importable,
    names_code,
    parse_pairs,
)
from benchmarks.training.console import (
    format_number,
    print_outcome,
    print_start,
    results_table,
    show_progress,
    silence_libraries,
)
from benchmarks.training.trials import DEFAULT_ENV, DEVICES, Trial, run_trial
from marca_env.utils.console import make_console
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.files import lock_output

DESCRIPTION = """\
Train an algorithm. To train several from one file, see marca train file --help.

  marca train --algo QMIX --config lr=5e-4 --stop training_iteration=80 --out results/qmix
  marca train --algo PPO --config share_parameters=true --stop episode_return_mean=0.05 --out results/ppo
  marca train --algo my_module.MyQMIX --env my_module.MyEnv --out results/mine
  marca train --resume results/qmix                               # go on after Ctrl-C
  marca train --resume results/qmix --stop training_iteration=200  # go on beyond the first limit

--algo takes a preset (AWRQMixer, QMIX, VDN, ...), an algorithm of RLlib (PPO, DQN, ...), or the dotted path of your own
Algorithm or AlgorithmConfig; --algo list shows all names, --env list all environments. Returns are the team's: the mean
or the sum over all agents (--config team_reward=mean or sum); one reward for the whole team counts once. All numbers of
the run go to OUT/progress.csv, OUT/progress.jsonl and TensorBoard (tensorboard --logdir OUT).

Checkpoints hold pickles: resuming a run executes the code of whoever wrote it. Your own are signed with your key and
resume at once; for any other, --resume asks, or needs --trust."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = DESCRIPTION
    what = parser.add_argument_group("what is trained")
    what.add_argument("--algo", metavar="NAME", help="algorithm (default: AWRQMixer)")
    what.add_argument(
        "--env", metavar="ID", help=f"environment: id or dotted path; list: the known ids (default: {DEFAULT_ENV})"
    )
    what.add_argument(
        "--offline",
        type=Path,
        metavar="LOG",
        help="learn from this request log instead (.parquet, .csv, a folder, a pattern)",
    )
    what.add_argument(
        "--scenario",
        metavar="NAME",
        help="scenario of the environment or the log: preset, .yaml file, or folder of marca fit (default: default)",
    )
    what.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the algorithm: key=value pairs, a .json or .yaml file, or a JSON object; env_config={...} "
        "goes to the environment, share_parameters=true gives agents one network (a preset: agents of equal spaces)",
    )
    what.add_argument("--seed", type=int, metavar="N", help="seed of the run (default: 0)")
    run = parser.add_argument_group("length and output")
    run.add_argument(
        "--stop",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=N",
        help="limits; the first one that is reached ends the run: training_iteration, env_steps, gradient_steps, "
        "episode_return_mean, time_total_s, or any number that the run reports, such as "
        "env_runners/episode_return_mean (default: training_iteration=50; a resumed run: as before)",
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="checkpoints and logs (default: results/train)")
    run.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="continue a run, from its newest checkpoint or a given one; --stop, --checkpoint-freq, --keep and "
        "--evaluate-freq are remembered, the options of where it runs may be changed, all others are kept",
    )
    run.add_argument("--trust", action="store_true", help=f"with --resume: {TRUST_HELP}")
    run.add_argument(
        "--checkpoint-freq", type=int, metavar="N", help="iterations between checkpoints; 0: only the last (default: 0)"
    )
    run.add_argument("--keep", type=int, metavar="N", help="newest checkpoints to keep (default: all)")
    run.add_argument(
        "--evaluate-freq",
        type=int,
        metavar="N",
        help="iterations between evaluations of an offline run; 0: none (default: 0). Rows of the log are held out for "
        "them: 10 %% for the validation and 10 %% for a test (--config validation_share=… test_share=…)",
    )
    run.add_argument("--wandb", metavar="PROJECT", help="also report to this project of Weights & Biases")
    where = parser.add_argument_group("where it runs")
    where.add_argument("--num-env-runners", type=int, metavar="N", help="processes that sample (default: 0, this one)")
    where.add_argument("--num-learners", type=int, metavar="N", help="processes that learn (default: 0, this one)")
    where.add_argument("--device", metavar="NAME", help="device of the learners: cpu or cuda (default: cpu)")
    where.add_argument("--num-gpus-per-learner", type=float, metavar="N", help="GPUs of each learner")
    where.add_argument("--address", metavar="HOST:PORT", help="run on this Ray cluster (auto: the one of this machine)")


def run(args: argparse.Namespace) -> int:
    """Train and save a last checkpoint however the run ends; return 130 after Ctrl-C."""
    if args.algo == "list" or args.env == "list":
        if args.algo == "list":
            _list_algorithms()
        if args.env == "list":
            _list_environments()
        return 0
    _check(args)
    trial = _trial(args)
    _check_stop(trial, args)
    out = args.out or (_run_folder(args.resume) if args.resume else Path("results/train"))
    metrics = _saved_metrics(args)
    if _is_finished(metrics, trial, args, out):
        return 0
    silence_libraries()
    trust = args.resume is not None and (args.trust or confirm_trust(args.resume))
    if args.resume is not None or names_code(args.algo, args.env, *args.config):
        make_current_folder_importable()
    if args.address is not None:
        join_cluster(args.address)
    config = None
    if args.resume is None:
        require_no_checkpoints(out)
        config = trial.build()
    print_start(trial, out, resume=args.resume, done=int(metrics.get("training_iteration", 0)))
    with lock_output(out), show_progress("training", trial.stop) as report:
        outcome = run_trial(
            trial,
            out,
            config=config,
            resume=args.resume,
            placement=_placement(args) if args.resume is not None else None,
            keep=args.keep,
            wandb=args.wandb,
            report=report,
            trust=trust,
        )
    print_outcome(outcome, out)
    if outcome.interrupted:
        print(f"interrupted; continue with: {_resume_command(out, args)}")
        return 130
    return 0


def _saved_metrics(args: argparse.Namespace) -> dict[str, Any]:
    """Return the metrics of the run to resume; empty for a new one."""
    if args.resume is None:
        return {}
    from agents.rllib.training.algorithm_checkpoints import saved_metrics

    return saved_metrics(args.resume)


def _is_finished(metrics: dict[str, Any], trial: Trial, args: argparse.Namespace, out: Path) -> bool:
    """Tell whether a run to resume has reached a limit already, and say so."""
    from agents.rllib.training.stopping import reached_limits

    reached = reached_limits(metrics, trial.stop)
    if reached:
        limits = ", ".join(f"{n} {format_number(metrics[n])} ≥ {format_number(trial.stop[n])}" for n in reached)
        further = " ".join(f"{name}={_further(metrics[name])}" for name in reached)
        print(f"{args.resume}: finished already ({limits}); to go on: {_resume_command(out, args)} --stop {further}")
    return bool(reached)


def _further(value: float) -> str:
    """Return a limit beyond a value that a run has reached, as a suggestion."""
    further = 2 * value if value > 0 else value + 1
    return str(int(further)) if float(further).is_integer() else f"{further:g}"


def _resume_command(out: Path, args: argparse.Namespace) -> str:
    """Return the command that continues a run; what the run does not remember is named again."""
    words = ["marca train --resume", shlex.quote(str(out))]
    for name in ("address", "wandb"):
        if getattr(args, name) is not None:
            words += [f"--{name}", shlex.quote(getattr(args, name))]
    return " ".join(words)


def _list_algorithms() -> None:
    from agents.rllib import CONFIGS
    from agents.rllib.training.any_algorithm import ALGORITHMS

    rows = [{"name": name, "about": _first_sentence(config)} for name, config in CONFIGS.items()]
    rows += [{"name": name, "about": "RLlib's"} for name in sorted(ALGORITHMS) if name not in CONFIGS]
    make_console().print(results_table(rows, {"name": "--algo", "about": ""}))


def _list_environments() -> None:
    from agents.rllib.envs.lookup import list_environments

    rows = [{"name": name, "about": about} for name, about in list_environments().items()]
    make_console().print(results_table(rows, {"name": "--env", "about": ""}))


def _first_sentence(documented: type) -> str:
    words = " ".join((documented.__doc__ or "").split()).replace("``", "")
    return re.split(r"(?<!et al)\. |: |; ", words)[0].rstrip(".")


def _trial(args: argparse.Namespace) -> Trial:
    """Return the run that the command line describes; a resumed run keeps what it remembers."""
    given: dict[str, Any] = {"checkpoint_freq": args.checkpoint_freq, "evaluate_freq": args.evaluate_freq}
    if args.stop:
        given["stop"] = parse_pairs(args.stop, "--stop")
    if args.resume is not None:
        from agents.rllib.training.run_settings import remembered_settings

        settings = remembered_settings(args.resume).replace(**given)
        if not settings.stop:
            raise InputError(f"{args.resume}: no limit is remembered there; pass --stop training_iteration=N")
        return Trial(stop=settings.stop, checkpoint_freq=settings.checkpoint_freq, evaluate_freq=settings.evaluate_freq)
    given |= {"run": args.algo, "seed": args.seed, "device": args.device}
    return Trial(
        env=args.env,
        offline=None if args.offline is None else str(args.offline),
        scenario=args.scenario,
        config={**parse_pairs(args.config, "--config"), **_processes(args)},
        **{name: value for name, value in given.items() if value is not None},
    )


def _processes(args: argparse.Namespace) -> dict[str, Any]:
    """Return the processes and GPUs asked for, as options of the algorithm."""
    names = ("num_env_runners", "num_learners", "num_gpus_per_learner")
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    for name, value in options.items():
        if value < 0:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must not be negative")
    return options


def _placement(args: argparse.Namespace) -> dict[str, Any]:
    """Return where a resumed run is to continue; empty: where it ran before."""
    if args.device not in (None, *DEVICES):
        raise InputError(unknown_option("device", args.device, DEVICES))
    on_device = {} if args.device is None else {"num_gpus_per_learner": int(args.device == "cuda")}
    return {**on_device, **_processes(args)}


def _run_folder(path: Path) -> Path:
    """Return the folder of the run that ``--resume`` names, itself or by one of its checkpoints."""
    parent = path.resolve().parent
    return parent if path.resolve() in checkpoints_in(parent) else path


def _check(args: argparse.Namespace) -> None:
    if args.offline is not None and not args.offline.exists() and not glob.has_magic(str(args.offline)):
        raise InputError(f"{args.offline}: no such file; --offline needs a request log")
    if args.resume is not None:
        names = ("algo", "config", "offline", "env", "scenario", "seed")
        extra = [f"--{name}" for name in names if getattr(args, name) not in (None, [])]
        if extra:
            raise InputError(f"--resume keeps the configuration of the checkpoint; leave {' and '.join(extra)} out")
        if not args.resume.exists():
            raise InputError(f"{args.resume}: no such folder; --resume needs a checkpoint or the folder of a run")
        _placement(args)
    elif args.trust:
        raise InputError("--trust is for --resume; a new run loads no checkpoint: leave it out")
    if args.keep is not None and args.keep < 1:
        raise InputError(f"--keep is {args.keep}; keep at least one checkpoint")
    check_output_folder(args.out)
    if args.evaluate_freq and args.resume is None and args.offline is None:
        raise InputError("--evaluate-freq evaluates offline runs; pass --offline LOG too, or leave it out")


def _check_stop(trial: Trial, args: argparse.Namespace) -> None:
    from agents.rllib.training.stopping import check_stop

    check_stop(trial.stop, None, evaluates=trial.offline is not None or args.resume is not None)
