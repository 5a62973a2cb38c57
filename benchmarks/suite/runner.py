"""Runs the cases of experiments that are not recorded yet, here or as Ray tasks, and records each as it ends."""

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

from benchmarks.suite import records
from benchmarks.suite.api import Case, Row
from benchmarks.suite.registry import experiment, load
from benchmarks.suite.staleness import outdated_note
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.progress import count_progress

QUICK_SEEDS = 2


@dataclass(frozen=True)
class Plan:
    """An experiment, what of it is wanted and what of that is there already."""

    name: str
    cases: tuple[Case, ...]
    todo: tuple[Case, ...]
    folder: Path
    quick: bool = False
    alone: bool = False
    note: str = ""
    """What to say of the rows that are there."""


@dataclass(frozen=True)
class Failure:
    """What raised: a case, or an experiment's tables."""

    name: str
    case: Case | None
    error: str
    """On one line."""
    trace: str = ""
    """The traceback."""


def plan(
    name: str,
    out: Path,
    *,
    quick: bool = False,
    seeds: Sequence[int] | None = None,
    methods: Sequence[str] | None = None,
    again: bool = False,
) -> Plan:
    """Which cases of an experiment there are to measure.

    Args:
        name: of the experiment, or its dotted path.
        out: folder of all experiments.
        quick: a small run.
        seeds: instead of the experiment's own.
        methods: instead of the experiment's own, if it lets one choose.
        again: measure also what is recorded.

    Raises:
        InputError: no such experiment, methods that it does not take or cannot measure, no cases, or damaged records.
    """
    found = load(name)
    options: dict[str, Any] = {}
    if methods:
        if not takes_methods(found):
            raise InputError(f"--methods: experiment {name} does not let one choose; leave --methods out")
        options["methods"] = tuple(dict.fromkeys(methods))
    chosen = tuple(dict.fromkeys(seeds or usual_seeds(found, quick)))
    cases = _cases(name, found, quick=quick, seeds=chosen, **options)
    if not cases:
        raise InputError(f"experiment {name} has no cases for these options")
    recorded = {} if again else {row.case.key: row for row in records.read(out / name)}
    there = [recorded[case.key] for case in cases if case.key in recorded]
    todo = tuple(case for case in cases if case.key not in recorded)
    for case in {case.method: case for case in todo}.values():
        getattr(found, "check", _nothing)(case)
    alone, note = bool(getattr(found, "ALONE", False)), outdated_note(experiment(name).__name__, there)
    return Plan(name, cases, todo, out / name, quick, alone, note)


def _cases(name: str, found: Any, **options: Any) -> tuple[Case, ...]:
    """An experiment's cases, each once."""
    try:
        return tuple({case.key: case for case in found.cases(**options)}.values())
    except InputError:
        raise
    except Exception as error:  # a module of one's own may have any fault
        if isinstance(error, (TypeError, ValueError)) and "JSON" in str(error):
            raise InputError(f"experiment {name}: a case holds more than plain data ({one_line(error)})") from error
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if last.filename == __file__ else f" ({Path(last.filename).name}, line {last.lineno})"
        raise InputError(
            f"experiment {name}: cases(*, quick, seeds) fails: {type(error).__name__}: {one_line(error)}{place}; "
            "see benchmarks/suite/api.py"
        ) from error


def _nothing(case: Case) -> None:
    """The check of an experiment that has none."""


def usual_seeds(experiment: Any, quick: bool) -> tuple[int, ...]:
    """Seeds of an experiment where none are given; of a quick run, no more than two."""
    seeds = tuple(getattr(experiment, "SEEDS", (0,)))
    return seeds[:QUICK_SEEDS] if quick else seeds


def takes_methods(experiment: Any) -> bool:
    """Whether the cases of an experiment can be chosen by method."""
    return "methods" in inspect.signature(experiment.cases).parameters


def run_here(plan: Plan) -> list[Failure]:
    """Measure the cases one by one; a case that raises does not lose the others."""
    return _collect(plan, (attempt(plan.name, case, plan.folder, plan.quick) for case in plan.todo))


def run_on_ray(plan: Plan) -> list[Failure]:
    """Measure the cases as Ray tasks of one CPU each; ray must have been started."""
    return _collect(plan, _ray_results(plan))


def _collect(plan: Plan, results: Iterator[Row | Failure]) -> list[Failure]:
    failures = []
    with count_progress(plan.name, len(plan.todo)) if len(plan.todo) > 1 else nullcontext(lambda: None) as advance:
        for result in results:
            if isinstance(result, Failure):
                failures.append(result)
            else:
                records.append(plan.folder, result)
            advance()
    return failures


def attempt(name: str, case: Case, folder: Path, quick: bool) -> Row | Failure:
    """Measure a case in this process; an error becomes a :class:`Failure`."""
    measure: Callable[[Case, Path], Any] = load(name).measure
    begun, cpu = time.perf_counter(), _cpu_seconds()
    try:
        numbers = measure(case, folder)
        seconds = time.perf_counter() - begun
        if not isinstance(numbers, dict):
            raise InputError(f"measure must return a dict of numbers; got {type(numbers).__name__}")
        return records.new_row(case, numbers, seconds, _cpu_seconds() - cpu, quick=quick)
    except Exception as error:
        return failure(name, case, error)


def failure(name: str, case: Case | None, error: Exception) -> Failure:
    """What to tell of an error that is being handled."""
    if isinstance(error, InputError):
        return Failure(name, case, one_line(error))
    return Failure(name, case, f"{type(error).__name__}: {one_line(error)}", traceback.format_exc())


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _attempt_there(paths: Sequence[str], *args: Any) -> Row | Failure:
    """:func:`attempt` in a process of Ray's, which finds the modules that this one finds, whenever Ray was started."""
    sys.path.extend(path for path in paths if path not in sys.path)
    return attempt(*args)


def _ray_results(plan: Plan) -> Iterator[Row | Failure]:
    import ray

    task = ray.remote(num_cpus=1, max_retries=0)(_attempt_there)
    folder, paths = plan.folder.resolve(), [str(Path(path).resolve()) for path in sys.path]
    waiting = {task.remote(paths, plan.name, case, folder, plan.quick): case for case in plan.todo}
    try:
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            case = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:  # the process died, or the module is not there
                yield Failure(plan.name, case, f"{type(error).__name__}: {one_line(error)[:300]}", str(error))
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
