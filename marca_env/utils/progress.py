"""Progress of long work: a bar on a terminal, about ten plain lines elsewhere; on the standard error stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from marca_env.utils.console import make_console


class ReportProgress(Protocol):
    """Called with (done, total) and a few words; the total is ``None`` where nobody knows it."""

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None: ...


@contextmanager
def track_progress(label: str) -> Iterator[ReportProgress]:
    """A function to call with (done, total) as the work goes on."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield _Lines(label, console)
        return
    note = TextColumn("{task.fields[note]}", markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=None, note="")

        def tell(done: int, total: int | None, note: str = "", /) -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield tell


@contextmanager
def count_progress(label: str, total: int) -> Iterator[Callable[..., None]]:
    """As :func:`track_progress`, for work that is counted: yields ``advance(n=1)``."""
    done = 0
    with track_progress(label) as tell:

        def advance(n: int = 1) -> None:
            nonlocal done
            done += n
            tell(done, total)

        yield advance


class _Lines:
    """A line for every tenth of the work or, where its length is unknown, each time that it has doubled."""

    def __init__(self, label: str, console: Console) -> None:
        self.label, self.console = label, console
        self.told = 0

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        reached = done.bit_length() if total is None else 10 * done // max(total, 1)
        if reached <= self.told:
            return
        self.told = reached
        share = f"{done}" if total is None else f"{done} of {total}"
        self.console.print(f"{self.label}: {share}{note and '  '}{note}", highlight=False, markup=False, soft_wrap=True)
