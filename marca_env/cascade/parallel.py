"""Work on a live cascade in several processes: the results do not depend on how many there are."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from marca_env.cascade.cascade import LiveCascade
from marca_env.scenario.scenario import Scenario

T = TypeVar("T")


def map_on_cascade(
    work: Callable[..., T], scenario: Scenario, jobs: Iterable[tuple[Any, ...]], workers: int | None
) -> Iterator[T]:
    """``work(cascade, *job)`` for every job, in their order, as they are done.

    The processes are started anew, never forked: a fork of a process with threads of its own, which torch and ray
    have, may hang.

    Args:
        work: a function of a module; its threads are limited to one.
        scenario: of the cascade, which every process builds once.
        jobs: further arguments of each call.
        workers: processes; 1: this one, ``None``: one per core.
    """
    text = json.dumps(scenario.to_dict())
    run = Parallel(n_jobs=workers or -1, backend="loky", batch_size=1, return_as="generator")
    return run(delayed(_alone)(work, text, job) for job in jobs)


def _alone(work: Callable[..., T], scenario: str, job: tuple[Any, ...]) -> T:
    with threadpool_limits(1):
        return work(_cascade(scenario), *job)


@functools.lru_cache(maxsize=1)
def _cascade(scenario: str) -> LiveCascade:
    return LiveCascade(Scenario.from_dict(json.loads(scenario)))
