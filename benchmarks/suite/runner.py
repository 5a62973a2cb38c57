"""Runner of experiments: measures the cases that are not recorded, here or as Ray tasks, and records each at once."""

from __future__ import annotations

import inspect
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmarks.suite import records
from benchmarks.suite.api import Case, Row
from benchmarks.suite.registry import load_experiment
from benchmarks.suite.staleness import outdated_note
from marca_env.utils.errors import InputError, SystemFaultError, is_missing_extra, one_line
from marca_env.utils.progress import count_progress

CLAIMS = "claims"
"""Folder of the locks of cases that are being measured, in that of the records."""
QUICK_SEEDS = 2
"""Most seeds of a quick run."""


@dataclass(frozen=True)
class RunPlan:
    """Cases of an experiment: all that a command asks for, and those still to be measured."""

    name: str
    cases: tuple[Case, ...]
    todo: tuple[Case, ...]
    folder: Path
    quick: bool = False
    alone: bool = False
    side_by_side: bool = False
    """Whether another process may measure other cases of the experiment meanwhile."""
    note: str = ""
    """Remark about the recorded rows."""


@dataclass(frozen=True)
class Failure:
    """Error of a case or, without one, of the experiment's tables."""

    name: str
    case: Case | None
    error: str
    """Message on one line."""
    trace: str = ""
    """Traceback."""


def plan_run(
    name: str,
    out: Path,
    *,
    quick: bool = False,
    seeds: Sequence[int] | None = None,
    methods: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    device: str | None = None,
    again: bool = False,
) -> RunPlan:
    """Plan which cases of an experiment to measure.

    Args:
        name: of the experiment, or its dotted path.
        out: folder of all experiments.
        quick: plan a small run.
        seeds: instead of the experiment's own.
        methods: instead of the experiment's own, if its ``cases`` takes methods.
        tasks: instead of the experiment's own, if its ``cases`` takes tasks.
        device: to measure, if its ``cases`` takes a device.
        again: measure recorded cases again.

    Raises:
        InputError: unknown experiment, methods or tasks that it does not take or cannot measure, no cases, or damaged
            records.
    """
    experiment = load_experiment(name)
    options: dict[str, Any] = {}
    if methods:
        if not takes_methods(experiment):
            raise InputError(f"--methods: experiment {name} has a fixed set of methods; leave --methods out")
        options["methods"] = tuple(dict.fromkeys(methods))
    if tasks:
        if not takes_tasks(experiment):
            raise InputError(f"--tasks: experiment {name} has a fixed set of tasks; leave --tasks out")
        options["tasks"] = tuple(dict.fromkeys(tasks))
    if device is not None:
        if "device" not in inspect.signature(experiment.cases).parameters:
            raise InputError(f"--device: experiment {name} does not measure a device; leave --device out")
        options["device"] = device
    seeds = tuple(dict.fromkeys(seeds or default_seeds(experiment, quick)))
    cases = _cases(name, experiment, quick=quick, seeds=seeds, **options)
    if not cases:
        raise InputError(f"experiment {name} has no cases for these options")
    recorded = {} if again else {row.case.key: row for row in records.read(out / name)}
    old_rows = [recorded[case.key] for case in cases if case.key in recorded]
    todo = tuple(case for case in cases if case.key not in recorded)
    for case in {case.method: case for case in todo}.values():
        getattr(experiment, "check", _check_nothing)(case)
    alone, note = bool(getattr(experiment, "ALONE", False)), outdated_note(experiment.__name__, old_rows)
    side_by_side = bool(getattr(experiment, "SIDE_BY_SIDE", False)) and not again
    return RunPlan(name, cases, todo, out / name, quick, alone, side_by_side, note)


def _cases(name: str, experiment: Any, **options: Any) -> tuple[Case, ...]:
    """Return the cases of an experiment, each once."""
    try:
        return tuple({case.key: case for case in experiment.cases(**options)}.values())
    except InputError:
        raise
    except Exception as error:  # a user's module may have any fault
        if isinstance(error, (TypeError, ValueError)) and "JSON" in str(error):
            raise InputError(f"experiment {name}: a case holds more than plain data ({one_line(error)})") from error
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if last.filename == __file__ else f" ({Path(last.filename).name}, line {last.lineno})"
        raise InputError(
            f"experiment {name}: cases(*, quick, seeds) fails: {type(error).__name__}: {one_line(error)}{place}; "
            "see benchmarks/suite/api.py"
        ) from error


def _check_nothing(case: Case) -> None:
    """Check a case of an experiment that has no check."""


def default_seeds(experiment: Any, quick: bool) -> tuple[int, ...]:
    """Return the seeds of an experiment if none are given; at most :data:`QUICK_SEEDS` for a quick run."""
    seeds = tuple(getattr(experiment, "SEEDS", (0,)))
    return seeds[:QUICK_SEEDS] if quick else seeds


def takes_methods(experiment: Any) -> bool:
    """Tell whether the methods of an experiment can be chosen."""
    return "methods" in inspect.signature(experiment.cases).parameters


def takes_tasks(experiment: Any) -> bool:
    """Tell whether the tasks of an experiment can be chosen."""
    return "tasks" in inspect.signature(experiment.cases).parameters


def run_here(plan: RunPlan) -> list[Failure]:
    """Measure the cases one after another; a failing case does not stop the others."""
    todo = _claimed(plan) if plan.side_by_side else plan.todo
    return _collect(plan, (measure_case(plan.name, case, plan.folder, plan.quick) for case in todo))


def _claimed(plan: RunPlan) -> Iterator[Case]:
    """Return the cases that no other process measures now or has recorded meanwhile, each locked until the next."""
    folder = plan.folder / CLAIMS
    folder.mkdir(parents=True, exist_ok=True)
    for case in plan.todo:
        path = folder / case.key
        try:
            with FileLock(path, blocking=False):
                if all(row.case.key != case.key for row in records.read(plan.folder)):
                    yield case
        except Timeout:
            continue
        path.unlink(missing_ok=True)


def run_on_ray(plan: RunPlan) -> list[Failure]:
    """Measure the cases as Ray tasks of one CPU each; Ray must be running."""
    return _collect(plan, _ray_results(plan))


def _collect(plan: RunPlan, results: Iterator[Row | Failure]) -> list[Failure]:
    failures = []
    with count_progress(plan.name, len(plan.todo)) if len(plan.todo) > 1 else nullcontext(lambda: None) as advance:
        for result in results:
            if isinstance(result, Failure):
                failures.append(result)
            else:
                records.append(plan.folder, result)
            advance()
    return failures


def measure_case(name: str, case: Case, folder: Path, quick: bool) -> Row | Failure:
    """Measure a case in this process; an error becomes a :class:`Failure`."""
    measure: Callable[[Case, Path], Any] = load_experiment(name).measure
    begin, cpu = time.perf_counter(), _cpu_seconds()
    try:
        numbers = measure(case, folder)
        seconds = time.perf_counter() - begin
        if not isinstance(numbers, dict):
            raise InputError(f"measure must return a dict of numbers; got {type(numbers).__name__}")
        return records.new_row(case, numbers, seconds, _cpu_seconds() - cpu, quick=quick)
    except Exception as error:
        if isinstance(error, SystemFaultError) or is_missing_extra(error):  # every other case would fail, too
            raise
        return describe_failure(name, case, error)


def describe_failure(name: str, case: Case | None, error: Exception) -> Failure:
    """Describe the error that is being handled."""
    if isinstance(error, InputError):
        return Failure(name, case, one_line(error))
    return Failure(name, case, f"{type(error).__name__}: {one_line(error)}", traceback.format_exc())


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its finished children."""
    return sum(os.times()[:4])


def _measure_in_worker(paths: Sequence[str], *args: Any) -> Row | Failure:
    """Measure a case in a Ray worker that can import what this process can, whenever Ray was started."""
    sys.path.extend(path for path in paths if path not in sys.path)
    return measure_case(*args)


def _ray_results(plan: RunPlan) -> Iterator[Row | Failure]:
    import ray

    task = ray.remote(num_cpus=1, max_retries=0)(_measure_in_worker)
    folder, paths = plan.folder.resolve(), [str(Path(path).resolve()) for path in sys.path]
    waiting = {task.remote(paths, plan.name, case, folder, plan.quick): case for case in plan.todo}
    try:
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            case = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:  # the process died, or lacks the module
                yield Failure(plan.name, case, f"{type(error).__name__}: {one_line(error)[:300]}", str(error))
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
