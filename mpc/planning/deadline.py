"""Deadlines for planning: a cooperative clock, and a watchdog thread for work that ignores the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineError(RuntimeError):
    """Planning took too long; raise ``deadline``, shorten the horizon or use the real-time mode."""


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


class Watchdog:
    """Runs work in a thread and stops waiting for it when the time is over.

    Work that overruns cannot be killed: it continues until it ends, and its result is discarded. Until then :meth:`run`
    refuses more work, so that two threads never use the same objects.
    """

    def __init__(self) -> None:
        self._overrunning: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether earlier work is still running past its deadline."""
        return self._overrunning is not None and self._overrunning.is_alive()

    def run(self, work: Callable[[], T], seconds: float) -> T:
        """Return the result of ``work``, or raise what it raises.

        Args:
            work: function to call.
            seconds: time allowed.

        Raises:
            DeadlineError: the work took longer than ``seconds``, or earlier work is still running.
        """
        if self.busy:
            raise DeadlineError("earlier planning still runs past its deadline")
        outcome: dict[str, Any] = {}

        def call() -> None:
            try:
                outcome["value"] = work()
            except BaseException as error:  # raised to the caller below
                outcome["error"] = error

        thread = threading.Thread(target=call, name="marca-mpc", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self._overrunning = thread
            raise DeadlineError(f"planning took longer than {seconds:g} s")
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]
