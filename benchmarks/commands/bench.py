"""``marca bench``: run experiments of the benchmark suite, print their tables and keep their results as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HELP = "run experiments of the benchmark suite"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments, see --list")
    parser.add_argument("--list", action="store_true", help="what experiments there are")
    parser.add_argument(
        "--out", type=Path, default=Path("results/bench"), help="folder of the results (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="small runs that only show that everything works")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="seeds (default: the experiment's own)")


def run(args: argparse.Namespace) -> int:
    """Run each experiment, and the parts that belong to it; its result goes to ``<out>/<name>.json``."""
    from rich.console import Console
    from rich.table import Table

    from benchmarks import experiments
    from marca_env.errors import InputError

    console = Console(width=None if Console().is_terminal else 120)
    if args.list or not args.names:
        table = Table("experiment", "what it measures")
        for name in experiments.names():
            table.add_row(name, experiments.summary(name))
        console.print(table)
        return 0
    chosen = with_parts(args.names)
    if any(seed < 0 for seed in args.seeds or ()):
        raise InputError(f"--seeds: {min(args.seeds)} is negative; give whole numbers from 0")
    for name in chosen:
        module = experiments.experiment(name)
        seeds = tuple(args.seeds or getattr(module, "SEEDS", (0,)))
        result = module.run(args.out / name, quick=args.quick, seeds=seeds)
        path = write_result(args.out, name, result, seeds=seeds, quick=args.quick)
        for table in getattr(module, "tables", lambda result: ())(result):
            console.print(table)
        console.print(f"wrote {path}", highlight=False)
    return 0


def with_parts(names: Sequence[str]) -> list[str]:
    """The experiments named and, after each, the parts of it that there are; each once.

    Raises:
        InputError: there is none of that name.
    """
    from benchmarks import experiments

    there, chosen = experiments.names(), []
    for name in names:
        chosen += [name, *(p for p in getattr(experiments.experiment(name), "PARTS", ()) if p in there)]
    return list(dict.fromkeys(chosen))


def write_result(out: Path, name: str, result: dict[str, Any], *, seeds: Sequence[int], quick: bool) -> Path:
    """Keep a result with what is needed to judge it: settings, machine and versions; returns the file."""
    from importlib import metadata

    from marca_env.saving import write_json
    from marca_env.testbench import machine

    versions = {}
    for package in ("marca-env", "torch", "ray"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    path = out / f"{name}.json"
    settings = {"experiment": name, "quick": quick, "seeds": list(seeds)}
    write_json(path, {**settings, "machine": machine(), "versions": versions, "result": result})
    return path
