"""``marca train``: train an algorithm, offline from a request log or online in an environment."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marca_env.errors import InputError

HELP = "train an algorithm, offline from a request log or online in the environment"
DEFAULT_ENV = "marca_env/parallel-v0"
DEFAULT_STOP = {"training_iteration": 50}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("--algo", default="AWRQMixer", metavar="NAME", help="algorithm (default: %(default)s)")
    add("--env", metavar="ID", help=f"environment id, or the dotted path of a class (default: {DEFAULT_ENV})")
    add("--offline", type=Path, metavar="LOG", help="learn from this request log (.parquet, .csv) instead")
    add("--scenario", help="preset or .yaml file of the log, or of the environment (default: default)")
    add(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the algorithm: a .json or .yaml file, a JSON object, or key=value pairs",
    )
    add("--stop", nargs="+", action="extend", default=[], metavar="KEY=N", help="limits (training_iteration=50)")
    add("--out", type=Path, default=Path("results/train"), metavar="DIR", help="checkpoints (default: %(default)s)")
    add("--resume", type=Path, metavar="DIR", help="go on from this checkpoint, or the newest in this folder")
    add("--checkpoint-freq", type=int, default=0, metavar="N", help="iterations between checkpoints (0: the last only)")
    add("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Train, keeping the last checkpoint whatever ends the run; returns 130 after Ctrl-C."""
    stop = {**DEFAULT_STOP} if not args.stop else parse_pairs(args.stop, "--stop")
    options = parse_pairs(args.config, "--config")
    _check_paths(args)
    from agents.checkpoints import checkpoint_name
    from agents.rllib.training import train

    config = None if args.resume else build_config(args, options)
    with _reporting(stop) as report:
        algorithm, numbers = train(
            config,
            stop=stop,
            out=args.out,
            resume=args.resume,
            checkpoint_freq=args.checkpoint_freq,
            report=report,
        )
    algorithm.stop()
    kept = args.out / checkpoint_name(int(algorithm.iteration))
    print(f"checkpoint: {kept}")
    if (kept / "policy").is_dir():
        print(f"policy:     {kept / 'policy'}")
    if numbers.get("interrupted"):
        print(f"interrupted; go on with: marca train --resume {args.out}")
        return 130
    return 0


def build_config(args: argparse.Namespace, options: dict[str, Any]) -> Any:
    """The configuration of ``--algo`` with the options of the command line."""
    from agents.rllib import CONFIGS
    from marca_env.errors import unknown_option

    if args.algo not in CONFIGS:
        raise InputError(unknown_option("algorithm", args.algo, CONFIGS))
    config = CONFIGS[args.algo]().debugging(seed=args.seed)
    if args.offline is not None:
        config.offline_data(input_=[str(args.offline.resolve())])
        if args.scenario:
            options = {"scenario": args.scenario, **options}
    else:
        env = args.env or DEFAULT_ENV
        env_config = {"scenario": args.scenario} if args.scenario else {}
        given = options.pop("env_config", {})
        if not isinstance(given, dict):
            raise InputError(f"env_config is {given!r}; give an object of the environment's options")
        config.environment(env, env_config={**env_config, **given})
    runners = {k: options.pop(k) for k in ("num_env_runners", "num_envs_per_env_runner") if k in options}
    learners = {k: options.pop(k) for k in ("num_learners", "num_gpus_per_learner") if k in options}
    return config.env_runners(**runners).learners(**learners).training(**options)


def parse_pairs(items: list[str], flag: str) -> dict[str, Any]:
    """Options from files, JSON objects and ``key=value`` pairs; later ones win.

    Raises:
        InputError: an item that is none of these, naming it.
    """
    import yaml

    found: dict[str, Any] = {}
    for item in items:
        if item.endswith((".json", ".yaml", ".yml")) and "=" not in item:
            text, where = _read(Path(item)), item
        elif item.lstrip().startswith("{"):
            text, where = item, flag
        elif "=" in item:
            key, _, value = item.partition("=")
            found[key.strip()] = _value(value)
            continue
        else:
            raise InputError(f"{flag} {item!r}: give key=value, a JSON object, or a .json or .yaml file")
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"{where}: neither JSON nor YAML ({error})") from None
        if not isinstance(data, dict):
            raise InputError(f"{where}: expected an object of options, got {type(data).__name__}")
        found |= data
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        named: dict[str, Any] = {"true": True, "false": False, "none": None, "null": None}
        return named.get(text.strip().lower(), text)


def _read(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path.read_text(encoding="utf-8")


def _check_paths(args: argparse.Namespace) -> None:
    if args.offline is not None and args.env is not None:
        raise InputError("--offline and --env exclude each other; give one of them")
    if args.offline is not None and not args.offline.is_file():
        raise InputError(f"{args.offline}: no such file; --offline needs a request log")
    given = [f"--{name}" for name in ("config", "offline", "env", "scenario") if getattr(args, name)]
    if args.resume is not None and given:
        raise InputError(f"--resume keeps the configuration of the checkpoint; leave {' and '.join(given)} out")
    if args.checkpoint_freq < 0:
        raise InputError(f"--checkpoint-freq is {args.checkpoint_freq}; it must not be negative")


@contextmanager
def _reporting(stop: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that takes each iteration's numbers and shows how far they are; at the end the last are printed."""
    from benchmarks.progress import tracked

    limit, last = stop.get("training_iteration"), ""
    try:
        with tracked("training") as tell:

            def report(numbers: dict[str, Any]) -> None:
                nonlocal last
                tell(int(numbers["training_iteration"]), None if limit is None else int(limit))
                last = " ".join(f"{k}={v:.5g}" for k, v in numbers.items())

            yield report
    finally:
        if last:
            print(last)
