"""Progress of long work on standard error: a bar on a terminal, about ten plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from marca_env.utils.console import make_console

ProgressCallback = Callable[[int, int], None]
"""Function that long work calls with (units done, units in all)."""


class ReportProgress(Protocol):
    """Progress callback that also takes an unknown total and a note."""

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        """Report ``done`` of ``total`` units of work (``None``: unknown) with a short note."""
        ...


@contextmanager
def track_progress(label: str) -> Iterator[ReportProgress]:
    """Yield a function to call with (done, total) as the work goes on."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield _Lines(label, console)
        return
    note = TextColumn("{task.fields[note]}", markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=None, note="")

        def report(done: int, total: int | None, note: str = "", /) -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield report


@contextmanager
def count_progress(label: str, total: int) -> Iterator[Callable[..., None]]:
    """Yield ``advance(n=1)`` to call after each unit of work; see :func:`track_progress`."""
    done = 0
    with track_progress(label) as report:

        def advance(n: int = 1) -> None:
            nonlocal done
            done += n
            report(done, total)

        yield advance


class _Lines:
    """Progress as plain lines: one for every tenth of the work or, if its length is unknown, at each doubling."""

    def __init__(self, label: str, console: Console) -> None:
        self.label, self.console = label, console
        self.last_step = 0

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        step = done.bit_length() if total is None else 10 * done // max(total, 1)
        if step <= self.last_step:
            return
        self.last_step = step
        share = f"{done}" if total is None else f"{done} of {total}"
        self.console.print(f"{self.label}: {share}{note and '  '}{note}", highlight=False, markup=False, soft_wrap=True)
