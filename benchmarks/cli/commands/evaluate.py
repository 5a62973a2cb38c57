"""``marca evaluate``: greedy episodes of a trained policy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from agents.policy.allocation_policy import DESCRIPTION as POLICY
from agents.policy.allocation_policy import is_own_policy, policy_folder
from benchmarks.cli.arguments import (
    ALLOW_CODE_HELP,
    TRUST_HELP,
    confirm_trust,
    make_current_folder_importable,
    names_code,
    parse_pairs,
)
from benchmarks.training.console import format_number, results_table, silence_libraries
from marca_env.utils.console import make_console
from marca_env.utils.errors import InputError
from marca_env.utils.files import check_writable, read_json, write_json

DESCRIPTION = """\
Play greedy episodes with a checkpoint, the newest checkpoint of a run, or a policy folder, and report their returns.
Every agent takes its greedy action, whatever the training explored. Returns are the team's: the mean or the sum over
all agents (team_reward of the training), which the first line names; one reward for the whole team counts once.
Of a preset's checkpoint only the policy folder is read, which executes no code. Checkpoints of RLlib's algorithms
(PPO, SAC, ...) hold pickles: loading one executes the code of its author, so that of somebody else needs --trust.

  marca evaluate results/qmix --episodes 500
  marca evaluate results/ppo/checkpoint_000050 --render
  marca evaluate downloaded/policy --allow-code my_module.MyMixer"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = DESCRIPTION
    parser.add_argument("checkpoint", type=Path, help="folder of a run, a checkpoint or a policy")
    parser.add_argument("--episodes", type=int, default=100, metavar="N", help="episodes (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the environment (default: %(default)s)"
    )
    parser.add_argument("--env", metavar="ID", help="environment: id or dotted path (default: that of the training)")
    parser.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options, such as env_config={...} for the environment",
    )
    parser.add_argument("--render", action="store_true", help="also print one episode as text")
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    parser.add_argument("--allow-code", nargs="+", action="extend", default=[], metavar="PATH", help=ALLOW_CODE_HELP)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures and every return as JSON")


def run(args: argparse.Namespace) -> int:
    """Play the episodes, print a table, write JSON if asked to."""
    _check(args)
    options = parse_pairs(args.config, "--config")
    env_config = options.pop("env_config", {})
    if not isinstance(env_config, dict):
        raise InputError(f"env_config is {env_config!r}; give an object of the environment's options")
    silence_libraries()
    from agents.rllib.training.evaluation import CheckpointPlayer

    folder, trust = policy_folder(args.checkpoint), args.trust
    is_preset = (folder / POLICY).is_file()
    if not is_preset:
        trust = trust or confirm_trust(args.checkpoint)
    if names_code(args.env, *args.allow_code) or trust or not is_preset or is_own_policy(folder):
        make_current_folder_importable()
    player = CheckpointPlayer(
        args.checkpoint,
        env=args.env,
        env_config=env_config,
        options=options,
        seed=args.seed,
        trust=trust,
        allow_code=args.allow_code,
    )
    played = player.play(args.episodes)
    figures = summarise(played.returns, played.lengths)
    if args.render:
        print("\n\n".join(player.frames()) + "\n")
    rows = [{"what": name.replace("_", " "), "value": _format(value)} for name, value in figures.items()]
    what = f", return {played.team_reward}" if played.team_reward else ""
    print(f"{played.algorithm} on {played.env}: {args.episodes} greedy episodes, seed {args.seed}{what}")
    make_console().print(results_table(rows, {"what": "", "value": ""}))
    print(f"policy: {played.source}")
    if _is_unlearnt(played.source):
        print("note:   this policy has taken no gradient step yet; its actions are those of new networks")
    if args.out is not None:
        described: dict[str, Any] = {"checkpoint": str(played.source), "algorithm": played.algorithm, "env": played.env}
        described["team_reward"] = played.team_reward
        lists = {"returns": played.returns.tolist(), "lengths": played.lengths.tolist()}
        write_json(args.out, {**described, "episodes": args.episodes, "seed": args.seed, **figures, **lists})
        print(f"wrote:  {args.out}")
    return 0


def _is_unlearnt(policy: Path) -> bool:
    """Tell whether a policy folder lies in a checkpoint that was written before the first gradient step."""
    from agents.rllib.training.algorithm_checkpoints import NUMBERS

    path = policy.parent / NUMBERS
    if not (policy / "policy.json").is_file() or not path.is_file():
        return False
    numbers = read_json(path)
    return isinstance(numbers, dict) and "training_iteration" in numbers and not numbers.get("gradient_steps")


def summarise(returns: np.ndarray, lengths: np.ndarray, *, confidence: float = 0.95) -> dict[str, Any]:
    """Summarise independent episodes: mean, median and range of returns and lengths.

    Args:
        returns: (E,).
        lengths: (E,).
        confidence: level of the mean's interval, a bootstrap percentile interval of 2,000 resamples; the interval of
            one episode is ``None``.
    """
    interval = None
    if len(returns) > 1 and np.ptp(returns) > 0:
        bootstrap = stats.bootstrap(
            (returns,),
            np.mean,
            confidence_level=confidence,
            n_resamples=2000,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        interval = [float(bootstrap.low), float(bootstrap.high)]
    elif len(returns) > 1:
        interval = [float(returns[0]), float(returns[0])]
    return {
        "return_mean": float(returns.mean()),
        "return_interval": interval,
        "return_median": float(np.median(returns)),
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "length_mean": float(lengths.mean()),
        "length_min": int(lengths.min()),
        "length_max": int(lengths.max()),
    }


def _format(value: Any) -> str:
    if value is None:
        return "–"
    return (
        f"[{format_number(value[0])}, {format_number(value[1])}], 95 %"
        if isinstance(value, list)
        else format_number(value)
    )


def _check(args: argparse.Namespace) -> None:
    if args.episodes < 1:
        raise InputError(f"--episodes is {args.episodes}; play at least one")
    if args.seed < 0:
        raise InputError(f"--seed is {args.seed}; it must not be negative")
    if not args.checkpoint.exists():
        raise InputError(f"{args.checkpoint}: no such folder; give a run, a checkpoint or a policy folder")
    if args.checkpoint.is_file():
        raise InputError(f"{args.checkpoint}: a file; give the folder of a run, a checkpoint or a policy")
    if args.out is not None and args.out.exists():
        raise InputError(f"--out {args.out}: exists already; give another name (or remove it)")
    if args.out is not None:
        check_writable(args.out.parent)
