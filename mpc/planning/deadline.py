"""Being on time: a clock that work looks at, and a watchdog for work that does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineError(RuntimeError):
    """Planning was not done in time: raise ``deadline``, shorten the horizon or use the real-time mode."""


class Deadline:
    """Seconds that are left, from now on.

    Args:
        seconds: the allowance; ``None``: no end.
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
        return time.perf_counter() >= self.end


class Watchdog:
    """Runs work beside the caller and stops waiting for it when the time is over.

    Work that overruns cannot be killed; it goes on until it ends by itself, its result is thrown away, and until then
    :meth:`run` refuses more. So nothing that the work uses is ever used by two at once.
    """

    def __init__(self) -> None:
        self._late: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether earlier work still overruns."""
        return self._late is not None and self._late.is_alive()

    def run(self, work: Callable[[], T], seconds: float) -> T:
        """The result of ``work``, or whatever it raises.

        Raises:
            DeadlineError: it took longer than ``seconds``, or earlier work still runs.
        """
        if self.busy:
            raise DeadlineError("earlier planning still runs past its deadline")
        outcome: dict[str, Any] = {}

        def call() -> None:
            try:
                outcome["value"] = work()
            except BaseException as error:  # handed to the caller below
                outcome["error"] = error

        thread = threading.Thread(target=call, name="marca-mpc", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self._late = thread
            raise DeadlineError(f"planning took longer than {seconds:g} s")
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]
