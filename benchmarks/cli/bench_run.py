"""``marca bench run``: measure what is not recorded yet, record every case as it ends, print the tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cli.arguments import make_current_folder_importable
from benchmarks.suite.registry import chosen, load
from benchmarks.suite.runner import failure, plan, run_here, run_on_ray
from benchmarks.suite.select_records import shown
from marca_env.utils.console import make_console
from marca_env.utils.errors import InputError
from marca_env.utils.files import check_writable

if TYPE_CHECKING:
    from benchmarks.suite.runner import Failure, Plan

DESCRIPTION = """\
Run experiments of the benchmark suite. Every case is a line of <out>/<experiment>/records.jsonl as soon as it is
measured; one that is there already is not measured again, so that the same command goes on where it was interrupted."""
OUT, OUT_QUICK = Path("results/bench"), Path("results/bench-quick")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "names", nargs="+", metavar="ID", help="experiments (marca bench list), all, or a module's dotted path"
    )
    parser.add_argument("--quick", action="store_true", help="small runs that only show that everything works")
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="N", help="seeds (default: its own; quick: two of them)"
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME", help="what to compare, your own by dotted path such as my_module.MyQMIX"
    )
    parser.add_argument("--again", action="store_true", help="measure also what is recorded; older rows stay")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"folder of the records (default: {OUT}; of quick runs: {OUT_QUICK})"
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="cases as tasks of one CPU each on this Ray cluster; local: on all cores of this machine",
    )


def run(args: argparse.Namespace) -> int:
    """Check everything, then measure; status 1 if a case failed."""

    make_current_folder_importable()
    if any(seed < 0 for seed in args.seeds or ()):
        raise InputError(f"--seeds: {min(args.seeds)} is negative; give whole numbers from 0")
    out = args.out or (OUT_QUICK if args.quick else OUT)
    plans = [
        plan(name, out, quick=args.quick, seeds=args.seeds, methods=args.methods, again=args.again)
        for name in chosen(args.names, quick=args.quick)
    ]
    for each in plans:
        check_writable(each.folder)
    remote = any(each.todo and not each.alone for each in plans)
    with _ray(args.address if remote else None):
        failures = [failure for each in plans for failure in _measure(each, args.address)]
    return _report(failures)


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Ray for the cases, if asked for; what was started for them ends with them."""
    if address is None:
        yield
        return
    try:
        import ray
    except ImportError:
        raise ImportError("--address needs ray: pip install 'marca-env[rllib]'") from None
    from agents.rllib.core.cluster import start_ray

    ours = not ray.is_initialized()
    start_ray(address=None if address == "local" else address)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _measure(chosen: Plan, address: str | None) -> list[Failure]:
    """Measure an experiment's cases and print its tables."""

    print(f"{chosen.name}: {len(chosen.todo)} of {len(chosen.cases)} cases to measure; in {chosen.folder}", flush=True)
    if chosen.note:
        print(f"{chosen.name}: {chosen.note}", flush=True)
    if address and chosen.alone and chosen.todo:
        print(f"{chosen.name}: measured here, one case after another, not on the cluster", flush=True)
    failures = (run_here if chosen.alone or not address else run_on_ray)(chosen) if chosen.todo else []
    try:
        found = shown(chosen.name, chosen.folder, quick=chosen.quick)
        for table in load(chosen.name).tables(found.rows) if found.rows else ():
            make_console().print(table)
        if found.outdated:
            print(f"{chosen.name}: {len(found.outdated)} of the recorded rows not shown: {found.why_outdated}")
    except Exception as error:  # of some rows only, perhaps; what comes after is measured all the same
        failures.append(failure(chosen.name, None, error))
    return failures


def _report(failures: Sequence[Failure]) -> int:
    """Say which cases failed; the exit status."""
    for failed in failures:
        case = failed.case
        what = (case.method, case.task, case.scenario, f"seed {case.seed}") if case else ("its tables",)
        print(failed.trace, end="", file=sys.stderr)
        print(f"marca: {failed.name}: {', '.join(x for x in what if x)}: {failed.error}", file=sys.stderr)
    cases = sum(failed.case is not None for failed in failures)
    if cases:
        print(
            f"marca: {cases} failed; the other cases are recorded, and the same command tries these again",
            file=sys.stderr,
        )
    return 1 if failures else 0
