"""``marca bench run``: measure the cases that are not recorded, record each at once, print the tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.cli.arguments import make_current_folder_importable
from benchmarks.suite.own_experiments import mark_own
from benchmarks.suite.registry import expand_names, load_experiment
from benchmarks.suite.runner import Failure, RunPlan, describe_failure, plan_run, run_here, run_on_ray
from benchmarks.suite.select_records import select_records
from marca_env.utils.console import make_console
from marca_env.utils.errors import InputError
from marca_env.utils.files import check_writable, lock_output

DESCRIPTION = """\
Run experiments of the benchmark suite. Every measured case is at once a line of <out>/<experiment>/records.jsonl, and a
recorded case is not measured again: after an interruption, the same command continues."""
OUT, OUT_QUICK = Path("results/bench"), Path("results/bench-quick")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "names",
        nargs="+",
        metavar="ID",
        help="experiments: ids of marca bench list, all, or the dotted path of your own module",
    )
    parser.add_argument("--quick", action="store_true", help="small runs that only show that everything works")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="N",
        help="seeds (default: those of the experiment; of quick runs: its first two)",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="methods to compare, your own by their dotted paths, such as my_module.MyQMIX (default: those of the "
        "experiment)",
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="NAME",
        help="tasks to compare on, for experiments that take them: public takes any name of marca train --env "
        "(default: those of the experiment)",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="cpu or cuda: measure this device, for experiments that take one: throughput compares updates, decisions "
        "and sampling with the rate of large matrix products there",
    )
    parser.add_argument("--again", action="store_true", help="measure recorded cases again; older rows stay")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"folder of the records (default: {OUT}; of quick runs: {OUT_QUICK})"
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="run the cases on this Ray cluster, one CPU each; local: on all cores of this machine",
    )


def run(args: argparse.Namespace) -> int:
    """Check everything, then measure; return 1 if a case failed."""
    make_current_folder_importable()
    if any(seed < 0 for seed in args.seeds or ()):
        raise InputError(f"--seeds: {min(args.seeds)} is negative; give whole numbers from 0")
    names = args.names if args.device else expand_names(args.names, quick=args.quick)  # parts measure no device
    out = args.out or (OUT_QUICK if args.quick else OUT)
    plans = [
        plan_run(
            name,
            out,
            quick=args.quick,
            seeds=args.seeds,
            methods=args.methods,
            tasks=args.tasks,
            device=args.device,
            again=args.again,
        )
        for name in names
    ]
    for plan in plans:
        check_writable(plan.folder)
    remote = any(plan.todo and not plan.alone for plan in plans)
    with ExitStack() as stack:
        for plan in plans:
            if plan.todo and not plan.side_by_side:
                stack.enter_context(lock_output(plan.folder))
        stack.enter_context(_ray(args.address if remote else None))
        for plan in plans:
            mark_own(plan.folder, plan.name, [case.method for case in plan.cases])
        failures = [failure for plan in plans for failure in _measure(plan, args.address)]
    return _report(failures)


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Run Ray for the cases, unless the address is ``None``; a Ray that is started here ends with them."""
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


def _measure(plan: RunPlan, address: str | None) -> list[Failure]:
    """Measure the cases of an experiment and print its tables."""
    print(f"{plan.name}: {len(plan.todo)} of {len(plan.cases)} cases to measure; in {plan.folder}", flush=True)
    if plan.note:
        print(f"{plan.name}: {plan.note}", flush=True)
    if address and plan.alone and plan.todo:
        print(f"{plan.name}: measured here, one case after another, not on the cluster", flush=True)
    failures = (run_here if plan.alone or not address else run_on_ray)(plan) if plan.todo else []
    try:
        selected = select_records(plan.name, plan.folder, quick=plan.quick)
        for table in load_experiment(plan.name).tables(selected.rows) if selected.rows else ():
            make_console().print(table)
        if selected.outdated:
            print(f"{plan.name}: {len(selected.outdated)} of the recorded rows not shown: {selected.why_outdated}")
    except Exception as error:  # perhaps of some rows only; the next experiments are measured anyway
        failures.append(describe_failure(plan.name, None, error))
    return failures


def _report(failures: Sequence[Failure]) -> int:
    """Print the failures; return the exit status."""
    for failure in failures:
        case = failure.case
        what = (case.method, case.task, case.scenario, f"seed {case.seed}") if case else ("its tables",)
        print(failure.trace, end="", file=sys.stderr)
        print(f"marca: {failure.name}: {', '.join(filter(None, what))}: {failure.error}", file=sys.stderr)
    cases = sum(failure.case is not None for failure in failures)
    if cases:
        print(
            f"marca: {cases} failed; the other cases are recorded, and the same command tries these again",
            file=sys.stderr,
        )
    return 1 if failures else 0
