"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_EVERY = 10.0
"""Seconds between two plain lines."""


@contextmanager
def tracked(label: str) -> Iterator[Callable[[int, int], None]]:
    """A function to call with (done, total) as the work goes on."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(label)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    def __init__(self, label: str) -> None:
        self.label, self.last = label, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self.last >= _EVERY:
            self.last = now
            print(f"{self.label}: {done} of {total}", flush=True)
