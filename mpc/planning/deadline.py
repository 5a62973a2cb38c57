"""Deadlines for planning: a cooperative clock, and a watchdog thread for work that ignores the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineError(RuntimeError):
    """Planning or a call took too long; raise ``deadline``, shorten the horizon or use the real-time mode."""


class Deadline:
    """A clock that starts at construction.

    Args:
        seconds: time allowed; ``None``: unlimited.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.start = time.perf_counter()
        self.end = float("inf") if seconds is None else self.start + seconds

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.end - time.perf_counter())

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return time.perf_counter() >= self.end


MAX_ABANDONED = 8
"""Number of threads that may run past their deadline at the same time."""


class WorkError(RuntimeError):
    """The work ended with an exception that is no ``Exception``, such as a panic of a solver written in Rust."""


class Watchdog:
    """Runs work in a thread and stops waiting for it when the time is over.

    Work that overruns cannot be killed: its thread is abandoned, runs until it ends, and its result is discarded. The
    next work gets a fresh thread. It must not use the objects of abandoned work, see :attr:`abandoned`.

    Args:
        most: number of abandoned threads that may run at the same time; then :meth:`run` refuses more work.

    Attributes:
        overruns: number of works so far that missed their deadline.
    """

    def __init__(self, most: int = MAX_ABANDONED) -> None:
        self.most, self.overruns = most, 0
        self._threads: list[threading.Thread] = []

    @property
    def abandoned(self) -> int:
        """Number of threads that still run past their deadline."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        return len(self._threads)

    @property
    def busy(self) -> bool:
        """Whether so many threads are abandoned that more work is refused."""
        return self.abandoned >= self.most

    def run(self, work: Callable[[], T], seconds: float) -> T:
        """Return the result of ``work``, or raise what it raises.

        Args:
            work: function to call.
            seconds: time allowed.

        Raises:
            DeadlineError: the work took longer than ``seconds``, or too many threads are abandoned.
            WorkError: the work raised an exception that is no ``Exception``.
        """
        if self.busy:
            raise DeadlineError(f"{self.abandoned} earlier calls still run past their deadline")
        outcome: dict[str, Any] = {}

        def call() -> None:
            try:
                outcome["value"] = work()
            except BaseException as error:  # raised to the caller below
                outcome["error"] = error

        thread = threading.Thread(target=call, name="marca-mpc", daemon=True)
        thread.start()
        thread.join(None if seconds > threading.TIMEOUT_MAX else seconds)
        if thread.is_alive():
            self._threads.append(thread)
            self.overruns += 1
            raise DeadlineError(f"no answer within {seconds:.3g} s")
        error = outcome.get("error")
        if error is not None and not isinstance(error, Exception):
            raise WorkError(f"{type(error).__name__}: {error}") from error
        if error is not None:
            raise error
        return outcome["value"]
