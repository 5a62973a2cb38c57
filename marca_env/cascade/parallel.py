"""Parallel work on a live cascade; the results do not depend on the number of processes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from marca_env.cascade.cascade import LiveCascade
from marca_env.scenario.scenario import Scenario

T = TypeVar("T")


def map_on_cascade(
    work: Callable[..., T], scenario: Scenario, jobs: Iterable[tuple[Any, ...]], workers: int | None
) -> Iterator[T]:
    """Yield ``work(cascade, *job)`` for every job, in the order of the jobs.

    The processes are spawned, never forked: a fork of a process with threads, as torch and ray have, may hang.

    Args:
        work: a function at module level; it runs on one thread.
        scenario: scenario of the cascade, which every process builds once.
        jobs: further arguments of each call.
        workers: processes; 1: this process, ``None``: one per core.
    """
    text = json.dumps(scenario.to_dict())
    home = None if scenario.home is None else str(scenario.home)
    run = Parallel(n_jobs=workers or -1, backend="loky", batch_size=1, return_as="generator")
    return run(delayed(_run_single_threaded)(work, text, home, job) for job in jobs)


def _run_single_threaded(work: Callable[..., T], scenario: str, home: str | None, job: tuple[Any, ...]) -> T:
    with threadpool_limits(1):
        return work(_cascade(scenario, home), *job)


@functools.lru_cache(maxsize=1)
def _cascade(scenario: str, home: str | None) -> LiveCascade:
    folder = None if home is None else Path(home)  # a world of ratings lies there
    return LiveCascade(Scenario.from_dict(json.loads(scenario)).replace(home=folder))
